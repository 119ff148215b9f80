/*
 * smtp_pipe - sendmail -bs: what a program says on standard input goes to a listener, and what
 * that answers to standard output.
 *
 * Thread: blocks.
 */
#ifndef TOOLS_SMTP_PIPE_H
#define TOOLS_SMTP_PIPE_H

/* Until the listener closes; closes `fd`. An exit code. */
int smtp_pipe_run(int fd);

#endif
