/*
 * dns - the resolver: one thread that asks and waits for everybody; the only file that knows
 * c-ares.
 *
 *   worker ── question ──► asked (stack, eventfd) ──► resolver thread ── c-ares ──► servers
 *   worker ◄─ os_loop_post ── dns_answer_read() ◄── packet ◄──────────────────────────┘
 *
 * c-ares only carries packets and repeats questions: its own parsers tell neither the TTL of an
 * MX nor the SOA of a negative answer, so dns_answer reads the packets.
 */
#include <ares.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "os/backend.h"
#include "os/dns_answer.h"

#define TIMEOUT_MS_DEFAULT 5000
#define TRIES_DEFAULT	   3
#define EDNS_BYTES	   1232 /* never fragmented */
#define EVENTS_MAX	   64
/* Questions with the servers at once: more would overflow a UDP socket's buffer, on their side or
 * on ours, and be repeated together when their time is over, to overflow it again. */
#define OPEN_MAX 128
#define AD_BYTE	 3 /* of the header; the bit asks for AD in return: RFC 6840, 5.7 */
#define AD_BIT	 0x20

/* A way to some servers. */
struct channel {
	ares_channel ares;
	bool trusted; /* all of them are on this machine: their AD bit means something */
};

/* One for the process. */
static struct {
	/* owner: the resolver thread, between start and stop */
	struct channel *channel;
	int epoll_fd;
	struct list waiting; /* of struct os_op: not yet sent */
	uint32_t open_count;
	bool changing; /* the old channel ends: what was asked on it is asked again */

	/* shared: atomics */
	_Atomic(struct channel *) next; /* owned until the thread takes it */
	struct op_stack asked;
	atomic_bool stopping, given_up;
	int wake_fd; /* an eventfd: written by the first to put a question on the stack */
	struct os_thread *thread;
} resolver;

/* ── questions ────────────────────────────────────────────────────────────────────── */

/* c-ares has an answer, or has given up. `packet` is lent. */
static void on_answer(void *argument, int status, int timeouts, unsigned char *packet, int bytes)
{
	struct os_dns_query *query = argument;

	(void)timeouts;
	resolver.open_count--;
	if (resolver.changing) {
		list_push_back(&resolver.waiting, &query->op.link);
		return;
	}
	if (status == ARES_SUCCESS && packet != NULL)
		dns_answer_read(query, packet, (size_t)bytes);
	else
		dns_answer_set(query, OS_DNS_FAILED, 0);
	if (!resolver.channel->trusted)
		query->secure = false;
	loop_return(query->op.loop, &query->op, 0);
}

static void question_send(struct os_dns_query *query)
{
	unsigned char *packet = NULL;
	unsigned short id;
	int bytes, status;

	os_random(&id, sizeof(id));
	status = ares_create_query(query->name, ns_c_in, (int)query->type, id, 1, &packet, &bytes,
				   EDNS_BYTES);
	if (status != ARES_SUCCESS) {
		/* What cannot be written as a question cannot exist. */
		dns_answer_set(query, status == ARES_EBADNAME ? OS_DNS_NXDOMAIN : OS_DNS_FAILED, 0);
		loop_return(query->op.loop, &query->op, 0);
		return;
	}
	packet[AD_BYTE] |= AD_BIT;
	resolver.open_count++;
	ares_send(resolver.channel->ares, packet, bytes, on_answer, query);
	ares_free_string(packet);
}

static void questions_take(void)
{
	struct list asked;
	uint64_t count;
	ssize_t got = read(resolver.wake_fd, &count, sizeof(count));

	assert(got == sizeof(count));
	list_init(&asked);
	op_stack_take(&resolver.asked, &asked);
	list_splice_back(&resolver.waiting, &asked);
}

static void questions_send(void)
{
	while (resolver.open_count < OPEN_MAX && !list_empty(&resolver.waiting)) {
		struct os_op *op =
			container_of(list_pop_front(&resolver.waiting), struct os_op, link);

		question_send(container_of(op, struct os_dns_query, op));
	}
}

/* What was never sent has no answer. */
static void questions_fail(void)
{
	for (struct list *node; (node = list_pop_front(&resolver.waiting)) != NULL;) {
		struct os_op *op = container_of(node, struct os_op, link);

		dns_answer_set(container_of(op, struct os_dns_query, op), OS_DNS_FAILED, 0);
		loop_return(op->loop, op, 0);
	}
}

/* ── the thread ───────────────────────────────────────────────────────────────────── */

/* c-ares tells which of its sockets it wants to hear about. */
static void on_socket(void *unused, ares_socket_t fd, int readable, int writable)
{
	struct epoll_event event = {
		.events = (readable ? (uint32_t)EPOLLIN : 0) | (writable ? (uint32_t)EPOLLOUT : 0),
		.data.fd = fd,
	};

	(void)unused;
	if (event.events == 0)
		epoll_ctl(resolver.epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	else if (epoll_ctl(resolver.epoll_fd, EPOLL_CTL_MOD, fd, &event) != 0)
		epoll_ctl(resolver.epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void channel_close(struct channel *channel)
{
	if (channel == NULL)
		return;
	ares_destroy(channel->ares);
	free(channel);
}

static void channel_change(void)
{
	struct channel *next;

	if (atomic_load_explicit(&resolver.next, memory_order_relaxed) == NULL)
		return;
	/* Acquire: pairs with os_dns_restart(). */
	next = atomic_exchange_explicit(&resolver.next, NULL, memory_order_acquire);
	resolver.changing = true;
	channel_close(resolver.channel);
	resolver.changing = false;
	assert(resolver.open_count == 0);
	resolver.channel = next;
}

static int wait_ms(void)
{
	struct timeval limit, *rest = ares_timeout(resolver.channel->ares, NULL, &limit);

	return rest == NULL ? -1 : (int)(rest->tv_sec * 1000 + (rest->tv_usec + 999) / 1000);
}

static void resolver_main(void *unused)
{
	struct epoll_event events[EVENTS_MAX];

	(void)unused;
	while (!atomic_load_explicit(&resolver.stopping, memory_order_acquire)) {
		int count = epoll_wait(resolver.epoll_fd, events, EVENTS_MAX, wait_ms());

		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;
			bool in = events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP);
			bool out = events[i].events & EPOLLOUT;

			if (fd == resolver.wake_fd)
				questions_take();
			else
				ares_process_fd(resolver.channel->ares, in ? fd : ARES_SOCKET_BAD,
						out ? fd : ARES_SOCKET_BAD);
		}
		/* Questions whose time is over. */
		ares_process_fd(resolver.channel->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
		channel_change();
		/* relaxed: nothing is read for it but the flag. */
		if (atomic_load_explicit(&resolver.given_up, memory_order_relaxed)) {
			ares_cancel(resolver.channel->ares);
			questions_fail();
		} else {
			questions_send();
		}
	}
}

static void resolver_wake(void)
{
	uint64_t one = 1;
	ssize_t written = write(resolver.wake_fd, &one, sizeof(one));

	assert(written == sizeof(one));
}

/* ── start and stop ───────────────────────────────────────────────────────────────── */

/* "127.0.0.1:5353, [::1]:53", which c-ares takes only without the spaces. */
static int servers_set(ares_channel ares, const char *servers)
{
	char *plain = malloc(strlen(servers) + 1), *to = plain;
	int status;

	if (plain == NULL)
		return -ENOMEM;
	for (; *servers != '\0'; servers++)
		if (*servers != ' ')
			*to++ = *servers;
	*to = '\0';
	status = ares_set_servers_ports_csv(ares, plain);
	free(plain);
	return status == ARES_SUCCESS ? 0 : status == ARES_ENOMEM ? -ENOMEM : -EINVAL;
}

static bool servers_are_local(ares_channel ares)
{
	struct ares_addr_port_node *servers = NULL;
	bool local = true;

	if (ares_get_servers_ports(ares, &servers) != ARES_SUCCESS || servers == NULL)
		return false;
	for (const struct ares_addr_port_node *server = servers; server; server = server->next)
		local &= server->family == AF_INET
				 ? ntohl(server->addr.addr4.s_addr) >> 24 == IN_LOOPBACKNET
				 : IN6_IS_ADDR_LOOPBACK((struct in6_addr *)&server->addr.addr6);
	ares_free_data(servers);
	return local;
}

static int channel_open(const struct os_dns_options *options, struct channel **out)
{
	struct ares_options wanted = {
		.flags = ARES_FLAG_EDNS | ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES,
		.timeout = (int)(options->timeout_ms ? options->timeout_ms : TIMEOUT_MS_DEFAULT),
		.tries = (int)(options->tries ? options->tries : TRIES_DEFAULT),
		.ednspsz = EDNS_BYTES,
		.sock_state_cb = on_socket,
	};
	struct channel *channel = malloc(sizeof(*channel));
	int status = channel == NULL ? ARES_ENOMEM
				     : ares_init_options(&channel->ares, &wanted,
							 ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS |
								 ARES_OPT_TRIES | ARES_OPT_EDNSPSZ |
								 ARES_OPT_SOCK_STATE_CB);
	int result = 0;

	if (status != ARES_SUCCESS) {
		free(channel);
		return status == ARES_ENOMEM ? -ENOMEM : -EIO;
	}
	if (options->servers != NULL && options->servers[0] != '\0')
		result = servers_set(channel->ares, options->servers);
	if (result != 0) {
		channel_close(channel);
		return result;
	}
	channel->trusted = servers_are_local(channel->ares);
	*out = channel;
	return 0;
}

int os_dns_start(const struct os_dns_options *options)
{
	struct epoll_event event = { .events = EPOLLIN };
	int result;

	assert(resolver.thread == NULL);
	list_init(&resolver.waiting);
	resolver.open_count = 0;
	if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
		return -ENOMEM;
	result = channel_open(options, &resolver.channel);
	if (result != 0)
		return result;
	resolver.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	resolver.wake_fd = eventfd(0, EFD_CLOEXEC);
	event.data.fd = resolver.wake_fd;
	if (resolver.epoll_fd < 0 || resolver.wake_fd < 0 ||
	    epoll_ctl(resolver.epoll_fd, EPOLL_CTL_ADD, resolver.wake_fd, &event) != 0)
		result = -errno;
	atomic_store(&resolver.stopping, false);
	atomic_store(&resolver.given_up, false);
	if (result == 0)
		result = os_thread_start(&resolver.thread, "resolver", resolver_main, NULL);
	if (result != 0) {
		channel_close(resolver.channel);
		close(resolver.epoll_fd);
		close(resolver.wake_fd);
	}
	return result;
}

int os_dns_restart(const struct os_dns_options *options)
{
	struct channel *next;
	int result = channel_open(options, &next);

	assert(resolver.thread != NULL);
	if (result != 0)
		return result;
	/* Release: pairs with channel_change(); one that was never taken is nobody's. */
	channel_close(atomic_exchange_explicit(&resolver.next, next, memory_order_acq_rel));
	resolver_wake();
	return 0;
}

void os_dns_give_up(void)
{
	atomic_store_explicit(&resolver.given_up, true, memory_order_relaxed);
	resolver_wake();
}

/* Questions still open end as failed, so their loops must still be there. */
void os_dns_stop(void)
{
	if (resolver.thread == NULL)
		return;
	atomic_store_explicit(&resolver.stopping, true, memory_order_release);
	resolver_wake();
	os_thread_join(resolver.thread);
	resolver.thread = NULL;
	resolver_wake(); /* so that what came last is not waited for in vain */
	questions_take();
	questions_fail();
	channel_close(resolver.channel);
	channel_close(atomic_exchange(&resolver.next, NULL));
	close(resolver.epoll_fd);
	close(resolver.wake_fd);
}

void os_dns_ask(struct os_loop *loop, struct os_dns_query *query)
{
	assert(resolver.thread != NULL && memchr(query->name, '\0', sizeof(query->name)) != NULL);
	loop_begin(loop, &query->op, OP_DNS);
	if (op_stack_push(&resolver.asked, &query->op))
		resolver_wake();
}

void os_dns_release(struct os_dns_query *query)
{
	free(query->records);
	query->records = NULL;
	query->record_count = 0;
}
