/*
 * client - those who submit mail: as SMTP knows it, in all the ways that it allows, and as
 * people's programs really end: in the middle.
 *
 * Thread: a fiber for each.
 */
#ifndef SIM_CLIENT_H
#define SIM_CLIENT_H

/* Starts the clients of this life. They end when nothing is left to be sent in it. */
void clients_start(void);

#endif
