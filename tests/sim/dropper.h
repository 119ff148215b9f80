/*
 * dropper - those who leave mail in the drop directory, as sendmail does while nobody listens.
 *
 * To the ledger it is a try whose 250 was never seen: one copy may be stored for it, and a second
 * is a finding. When all has come to its end, the folder has to be empty.
 *
 * Thread: a fiber.
 */
#ifndef SIM_DROPPER_H
#define SIM_DROPPER_H

#include <stdbool.h>

/* Starts it in this life, if there is one in this run. */
void dropper_start(void);
/* Nothing lies in the folder. */
bool dropper_empty(void);

#endif
