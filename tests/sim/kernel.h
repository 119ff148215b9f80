/*
 * kernel - the machine of the simulated daemon without its disk, network and wall clock: threads,
 * signals. Implements that part of os/os.h; here is what the world may do to it.
 *
 * Thread: there is one.
 */
#ifndef SIM_KERNEL_H
#define SIM_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

/* Before the first life, in the arena. */
void kernel_create(void);
/* Sends a signal to the daemon: pending until it asks. */
void kernel_signal(int number);
/* It has said that it is ready, and not yet that it stops. */
bool kernel_is_ready(void);
/* It was, in this life or an earlier one. */
bool kernel_was_ready(void);

#endif
