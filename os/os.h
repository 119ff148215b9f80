/*
 * os - the seam: every operation that the product asks of the kernel, the clock, the
 * random source and the resolver.
 *
 *   worker ── os_send(loop, &conn->send_op, ...) ──►  backend (io_uring or epoll)
 *          ◄── op->done(op), op->result ───────────  os_loop_turn()
 *
 * Promise: an operation is completed exactly once, by a call of op->done on the thread that
 * turns the loop, never from inside the call that submitted it. Until then the operation and
 * every buffer that it names belong to the loop, also when their connection is gone.
 * Non-promise: operations complete in any order.
 *
 * Thread: a loop belongs to the thread that created it; only os_loop_wake() and
 * os_loop_post() may be called by others. Calls without a loop block, and belong to
 * start-up, to os_offload() and to tools.
 * Results: 0 or more, or -errno; nothing here uses errno.
 */
#ifndef OS_OS_H
#define OS_OS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "os/list.h"
#include "os/span.h"

/* ── time ─────────────────────────────────────────────────────────────────────────── */

/* Never goes back and knows no calendar. */
struct os_mono {
	uint64_t ns;
};

/* Unix time in UTC; may jump. */
struct os_wall {
	int64_t us;
};

#define OS_NS_PER_MS UINT64_C(1000000)
#define OS_NS_PER_S  UINT64_C(1000000000)
#define OS_US_PER_S  INT64_C(1000000)

struct os_mono os_mono_now(void);
struct os_wall os_wall_now(void);

static inline struct os_mono os_mono_add_ms(struct os_mono from, uint64_t ms)
{
	return (struct os_mono){ from.ns + ms * OS_NS_PER_MS };
}

/* Whether the kernel says that somebody (NTP) keeps the wall clock right. */
bool os_clock_synchronised(void);

/* Unix seconds as the disk keeps them. */
static inline uint32_t os_wall_seconds(struct os_wall wall)
{
	return (uint32_t)(wall.us / OS_US_PER_S);
}

/* Fills `bytes` with randomness fit for secrets. */
void os_random(void *bytes, size_t count);

/* ── addresses ────────────────────────────────────────────────────────────────────── */

/* An IPv4, IPv6 or UNIX socket address. Plain data; compare with os_address_equal(). */
struct os_address {
	sa_family_t family; /* AF_UNSPEC: none */
	uint16_t port;	    /* host order */
	uint32_t scope_id;  /* IPv6 link-local */
	uint8_t ip[16];	    /* network order; IPv4 uses the first four */
	char path[108];	    /* AF_UNIX */
};

#define OS_ADDRESS_TEXT_MAX 128

/* "192.0.2.1", "2001:db8::1" or a path beginning with '/'; false if it is none of them. */
bool os_address_parse(const char *text, uint16_t port, struct os_address *out);
/* The address without its port, as os_address_parse() reads it. */
const char *os_address_text(const struct os_address *address, char out[static OS_ADDRESS_TEXT_MAX]);
bool os_address_equal(const struct os_address *a, const struct os_address *b);
uint64_t os_address_hash(const struct os_address *address); /* of what makes them equal */
/* 0.0.0.0 or ::, at any port: all addresses of a machine. */
bool os_address_is_any(const struct os_address *address);
/* ::ffff:192.0.2.1 is 192.0.2.1; any other stays what it is. */
void os_address_unmap(struct os_address *address);

/* ── the loop ─────────────────────────────────────────────────────────────────────── */

struct os_loop; /* opaque: the kernel's side of it, and what it has in flight */

/* One operation in flight. Embedded in its owner, who finds itself with container_of().
 * Zero it once, set `done`, and submit; it may be submitted again from inside `done`. */
struct os_op {
	void (*done)(struct os_op *op);
	const char *data; /* os_recv(): what arrived, lent until `done` returns */
	int32_t result;
	bool busy; /* submitted and not completed */
	/* Private to the backend. */
	bool cancelled; /* an early end was asked for */
	uint8_t kind;
	uint8_t stage;
	uint16_t generation;
	struct list link;
	struct os_loop *loop;
	int fd;
	union {
		struct {
			struct msghdr message;
			const struct iovec *next; /* not yet sent: first `partial`, then these */
			int next_count;
			struct iovec partial;
		} send;
		struct {
			struct sockaddr_un address; /* holds an IPv4 or IPv6 address as well */
			socklen_t length;
		} connect;
		struct {
			void *bytes;
			size_t count;
			uint64_t offset;
			int flags;
		} file;
		struct {
			void (*run)(struct os_op *op);
		} offload;
	} u;
};

/* A zero stands for the value named last. */
struct os_loop_options {
	uint32_t operations;	    /* in flight at once before submission has to flush; 1024 */
	uint32_t recv_buffers;	    /* lent by os_recv(); a power of two; 128 */
	uint32_t recv_buffer_bytes; /* 65536 */
};

/* Picks the backend once for the process: the one that the environment names in STAFETTE_IO, else
 * io_uring, else epoll. `why_out` gets one line for the operator: what was chosen, and what
 * refused and how to allow it. 0, or -errno with nothing usable. */
int os_backend_choose(char *why_out, size_t why_bytes);
/* The same, but this one and no other: "io_uring" or "epoll". -EINVAL: there is no such one. */
int os_backend_use(const char *name, char *why_out, size_t why_bytes);

int os_loop_create(const struct os_loop_options *options, struct os_loop **out);
/* Nothing may be in flight. Accepts NULL. */
void os_loop_destroy(struct os_loop *loop);

/* Submits what was asked, sleeps until a completion, a wake or `until`, and runs `done` of all
 * that has completed. `until` in the past: does not sleep. Returns how many were completed. */
uint32_t os_loop_turn(struct os_loop *loop, struct os_mono until);

/* The clocks as read at the start of this turn's callbacks: cheap, the same for all of them. */
struct os_mono os_loop_mono(const struct os_loop *loop);
struct os_wall os_loop_wall(const struct os_loop *loop);

/* Any thread. Ends the loop's sleep; cheap while it is awake. */
void os_loop_wake(struct os_loop *loop);
/* Any thread. Completes `op`, which must be idle but owned by the caller, on that loop. */
void os_loop_post(struct os_loop *loop, struct os_op *op, int32_t result);

/* Asks for an early end: `op` completes as always, with -ECANCELED unless it was faster. */
void os_cancel(struct os_loop *loop, struct os_op *op);

/* ── sockets ──────────────────────────────────────────────────────────────────────── */

/* Of one descriptor, at most one accept or receive and one connect or send are in flight. What
 * was in use on a loop is closed by os_close() and nothing else. Sockets made before the backend
 * was chosen are no use on a loop. */

/* A listening socket (SO_REUSEPORT, SO_REUSEADDR, IPV6_V6ONLY), or -errno. A UNIX socket that
 * an earlier process left behind, and on which nobody listens, is replaced. */
int os_listen(const struct os_address *address, int backlog);
/* 0: nobody listens there yet, nor did somebody of this user with SO_REUSEPORT, whom os_listen()
 * would join; else -errno. UNIX sockets: 0. */
int os_listen_try(const struct os_address *address);
/* A socket for os_connect(), bound to `source` unless NULL, with TCP_NODELAY; or -errno. */
int os_socket(sa_family_t family, const struct os_address *source);
/* The port that a listening socket got, the far and the near end of a connection. */
int os_local_address(int fd, struct os_address *out);
int os_peer_address(int fd, struct os_address *out);

/* result: the connection's descriptor, with TCP_NODELAY. */
void os_accept(struct os_loop *loop, struct os_op *op, int listen_fd);
/* `address` is copied. */
void os_connect(struct os_loop *loop, struct os_op *op, int fd, const struct os_address *address);
/* What is there, at most one receive buffer. result: bytes in op->data; 0: the peer closed. */
void os_recv(struct os_loop *loop, struct os_op *op, int fd);
/* All of it; `iov` and what it names stay until completion. result: bytes sent, which is
 * less than asked only if the connection broke in between. */
void os_send(struct os_loop *loop, struct os_op *op, int fd, const struct iovec *iov, int count);
/* Nothing may be in flight on `fd`. Does not block. */
void os_close(int fd);

/* ── files, on a loop ─────────────────────────────────────────────────────────────── */

enum os_write_flags {
	OS_WRITE_DURABLE = 1, /* complete only when data and size are on stable storage */
};

/* result: bytes; fewer than asked only at the end of the file (read) or if the disk is full.
 * On a file opened with OS_DIRECT, buffer, count and offset are multiples of 4096. */
void os_read(struct os_loop *loop, struct os_op *op, int fd, void *bytes, size_t count,
	     uint64_t offset);
void os_write(struct os_loop *loop, struct os_op *op, int fd, const void *bytes, size_t count,
	      uint64_t offset, int flags);
void os_sync(struct os_loop *loop, struct os_op *op, int fd);

/* Runs `run(op)` on a helper thread, where the blocking calls below are allowed, then
 * completes `op` on the loop with what `run` left in op->result. `run` touches only what
 * the operation's owner set aside for it. */
void os_offload(struct os_loop *loop, struct os_op *op, void (*run)(struct os_op *op));
/* The same for what computes for long, on two threads of its own: however much of it there is,
 * what is offloaded goes on. */
void os_compute(struct os_loop *loop, struct os_op *op, void (*run)(struct os_op *op));

/* ── files, blocking ──────────────────────────────────────────────────────────────── */

#define OS_CURRENT_FOLDER (-100) /* as AT_FDCWD */

enum os_open_flags {
	OS_READ = 1,
	OS_WRITE = 2,
	OS_CREATE_NEW = 4, /* fails with -EEXIST */
	OS_DIRECT = 8,	   /* past the page cache; -EINVAL where the file system has none */
	OS_FOLDER = 16,
	OS_APPEND = 32, /* logs */
	OS_CREATE = 64,
	OS_STRANGE = 128, /* anybody may have made it: follows no link, waits for no pipe */
};

int os_file_open(int folder, const char *name, int flags, mode_t mode);
void os_file_close(int fd);
/* As os_read() and os_write(): whole, or short only at the end of the file. */
ssize_t os_file_read(int fd, void *bytes, size_t count, uint64_t offset);
ssize_t os_file_write(int fd, const void *bytes, size_t count, uint64_t offset);
/* Appends at the end of a file opened with OS_APPEND. */
ssize_t os_file_append(int fd, const struct iovec *iov, int count);
/* fdatasync of a file, fsync of a folder. Never repeat a failed one on the same file. */
int os_file_sync(int fd);
/* On btrfs a sync may say "done" of what was lost: one that waits while another's fails to commit
 * the transaction of both, and runs again only when that has been cleared away, finds nothing to
 * wait for (seen with Linux 6.18, rarely, in the moment in which a disk fails). Every sync that
 * begins later fails. */
bool os_file_on_btrfs(int fd);
bool os_file_on_tmpfs(int fd);
int64_t os_file_size(int fd);
int os_file_truncate(int fd, uint64_t bytes);
/* Forgets cached pages, so that the next read comes from the disk. The file was synced. */
int os_file_drop_cache(int fd);
/* An exclusive flock without waiting: -EWOULDBLOCK if another process has it. */
int os_file_lock(int fd);
/* The permission bits, as chmod(1) has them. */
int os_file_mode(int fd, uint32_t *mode_out);
int os_file_set_mode(int fd, uint32_t mode);

struct os_file_facts {
	uint64_t inode, bytes;
	uint32_t owner, links;
	bool regular; /* no folder, pipe, socket or device */
	struct os_wall modified;
};
int os_file_facts(int fd, struct os_file_facts *out);
/* Gives the file the owner, the group and the permission bits that another has. */
int os_file_resemble(int fd, int other_fd);
/* Gives the file, also one of shared memory, to a group by its name. -ENOENT: there is none. */
int os_file_group(int fd, const char *group);
/* Where the symbolic links on it lead. */
int os_path_real(const char *path, char *out, size_t bytes);
int os_rename(int from_folder, const char *from, int to_folder, const char *to);
int os_unlink(int folder, const char *name);
/* Files of a new folder are overwritten in place, also where the file system would copy on
 * write. 0 also if it is there. */
int os_mkdir(int folder, const char *name, mode_t mode);
/* The same for a path; what it makes is durable in its parent when it returns 0. If it can't be,
 * the folder is gone again: a later sync would say nothing of this one's failure. Of one that is
 * there the parent is synced where that is allowed. */
int os_mkdir_durable(const char *path, mode_t mode);
/* Calls `each` for every entry but "." and ".."; stops at a result that is not 0 and returns it. */
int os_folder_list(int folder, int (*each)(void *context, const char *name), void *context);
/* Bytes that this process may still write on the file system of `fd`, and its size. */
int os_file_space(int fd, uint64_t *free_out, uint64_t *total_out);
/* A short file, whole: allocated with malloc, one NUL added after it; caller frees. */
int os_file_load(int folder, const char *name, size_t bytes_max, char **out, size_t *count_out);

/* ── shared memory ────────────────────────────────────────────────────────────────── */

/* A file on tmpfs, mapped by its one writer and by tools that only read. `name` has no '/'.
 * The writer reserves address space for `bytes_max` once and grows by fallocate()d, prefaulted
 * extents, so that a full tmpfs is an error here and never a SIGBUS later. */
struct os_shared {
	void *at;
	size_t bytes;	  /* usable */
	size_t bytes_max; /* reserved (writer) */
	int fd;
};

int os_shared_create(struct os_shared *shared, const char *name, size_t bytes_max, mode_t mode);
int os_shared_grow(struct os_shared *shared, size_t bytes);
int os_shared_open(struct os_shared *shared, const char *name); /* read-only */
void os_shared_close(struct os_shared *shared);
void os_shared_unlink(const char *name);
/* Calls `each` for the names of all there are, also of others; stops at a result that is not 0 and
 * returns it. */
int os_shared_list(int (*each)(void *context, const char *name), void *context);
/* The process that created what was opened here is gone. */
bool os_shared_is_orphan(const struct os_shared *shared);

/* ── threads, signals, process ────────────────────────────────────────────────────── */

struct os_thread; /* opaque */

int os_thread_start(struct os_thread **out, const char *name, void (*run)(void *context),
		    void *context);
/* Waits for its end, and frees it. */
void os_thread_join(struct os_thread *thread);
/* One pointer of the calling thread's own; NULL until it is set. */
void os_thread_set_self(void *self);
void *os_thread_self(void);
/* Sleeps on a word: returns when it is no longer `value`, when woken, or at the time. */
void os_futex_wait(_Atomic uint32_t *word, uint32_t value, struct os_mono until);
void os_futex_wake(_Atomic uint32_t *word);

/* Blocks TERM, INT, HUP, USR1 and ignores PIPE: before the first thread starts. */
void os_signals_block(void);
/* The next of them, or 0 at `until`. */
int os_signal_wait(struct os_mono until);

uint32_t os_cpu_count(void);
uint32_t os_process_id(void);
const char *os_host_name(void); /* the node's name, as full as the system knows it */
/* Has the C library copy without 512-bit registers, where it would: for many small copies between
 * other work they cost more than they save. It is told before main() alone, so this process is
 * executed again, once; or it goes on as it is. First of all in main(). */
void os_vectors_narrow(char **argv);
/* Raises the limits of open files and of locked memory as far as this process may; how many files
 * it may have. */
uint64_t os_limits_raise(void);
void os_notify(const char *state); /* sd_notify(3) */

/* ── least privilege ──────────────────────────────────────────────────────────────── */

struct os_user {
	char name[64];
	uint32_t uid, gid;
};

bool os_is_root(void);
/* `group` NULL: the user's own. -ENOENT: there is no such user, or group. */
int os_user_find(const char *name, const char *group, struct os_user *out);
int os_file_owner(int fd, uint32_t *uid_out);
int os_file_give(int fd, const struct os_user *user);
/* Becomes `user` for good (NULL: stays who it is), keeps no capability but that of opening ports
 * below 1024, if it has it, and gains none by any program. Before the first thread starts. -errno:
 * don't go on. */
int os_drop_privileges(const struct os_user *user);

/* Folders or files, all below them included; what is not there is left out. */
struct os_sandbox {
	const char *const *read, *const *written;
	size_t read_count, written_count;
};

/* From now on the process reaches only these and what its libraries read (/etc, /usr), and asks
 * the kernel only what it needs; it leaves no core. Before the first thread starts. `what_out`: a
 * line about what is in force; a kernel without one of the two is no error. -errno: don't go on. */
int os_sandbox(const struct os_sandbox *sandbox, char *what_out, size_t what_bytes);

/* ── DNS ──────────────────────────────────────────────────────────────────────────── */

enum os_dns_type {
	OS_DNS_A = 1,
	OS_DNS_MX = 15,
	OS_DNS_TXT = 16,
	OS_DNS_AAAA = 28,
	OS_DNS_TLSA = 52
};

enum os_dns_status {
	OS_DNS_OK,	 /* at least one record of the type */
	OS_DNS_NODATA,	 /* the name exists, without this type */
	OS_DNS_NXDOMAIN, /* the name does not exist */
	OS_DNS_FAILED,	 /* SERVFAIL, timeout, garbage: ask again later */
};

struct os_dns_record {
	uint16_t preference;	   /* MX */
	struct os_address address; /* A, AAAA */
	char name[256];	  /* MX: the target, lower case, without final dot; "" is the root */
	struct span data; /* TXT: its strings, joined; TLSA: as on the wire. Owned by the query */
};

/* A question and its answer; CNAMEs are followed. */
struct os_dns_query {
	struct os_op op; /* op.result is unused */
	char name[256];	 /* ASCII, without final dot */
	enum os_dns_type type;
	/* The answer. */
	enum os_dns_status status;
	bool secure;	/* the AD bit, from a resolver on loopback */
	uint32_t ttl_s; /* the smallest of the chain; of the SOA's for a negative answer; 0 on
			   FAILED */
	uint32_t record_count;
	struct os_dns_record *records; /* owned by the query: os_dns_release() */
};

struct os_dns_options {
	const char *servers; /* "127.0.0.1:5353, [::1]:53"; NULL or "": as /etc/resolv.conf says */
	uint32_t timeout_ms; /* of one try; 5000 */
	uint32_t tries;	     /* 3 */
};

/* Starts the resolver, once for the process. */
int os_dns_start(const struct os_dns_options *options);
/* Goes on with other options, or with what /etc/resolv.conf says now; questions that are open are
 * asked again. -errno: nothing has changed. */
int os_dns_restart(const struct os_dns_options *options);
/* All questions, open and to come, end as failed: whoever stops does not wait for servers. */
void os_dns_give_up(void);
void os_dns_stop(void);
void os_dns_ask(struct os_loop *loop, struct os_dns_query *query);
void os_dns_release(struct os_dns_query *query);

#endif
