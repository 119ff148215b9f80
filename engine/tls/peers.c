#include "engine/tls/peers.h"

#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { PEERS_MAX = 1024, BUCKETS = 1024 };

/* Of an address, or of an address under a policy. Two that share a key cannot resume each
 * other's sessions, and at worst speak clear text with each other's excuse. */
struct peer {
	struct list link, bucket_link;
	uint64_t key;
	struct tls_session *session; /* owned; NULL: a failure */
	struct os_mono until;
};

struct tls_peers {
	struct list all; /* the longest unused first */
	uint32_t count;
	struct list buckets[BUCKETS];
};

struct tls_peers *tls_peers_create(void)
{
	struct tls_peers *peers = calloc(1, sizeof(*peers));

	if (!peers)
		return NULL;
	list_init(&peers->all);
	for (int i = 0; i < BUCKETS; i++)
		list_init(&peers->buckets[i]);
	return peers;
}

static void forget(struct tls_peers *peers, struct peer *peer)
{
	list_remove(&peer->link);
	list_remove(&peer->bucket_link);
	tls_session_destroy(peer->session);
	free(peer);
	peers->count--;
}

void tls_peers_destroy(struct tls_peers *peers)
{
	if (!peers)
		return;
	while (!list_empty(&peers->all))
		forget(peers, container_of(peers->all.next, struct peer, link));
	free(peers);
}

static uint64_t key_of(const struct os_address *address, const struct tls_policy *policy)
{
	uint64_t key = os_address_hash(address);

	if (!policy)
		return key;
	key = XXH3_64bits_withSeed(policy->name, strlen(policy->name), key);
	return XXH3_64bits_withSeed(&key, sizeof(key), 1 + (uint64_t)policy->level);
}

/* NULL: not known, or not any more. */
static struct peer *find(struct tls_peers *peers, uint64_t key, struct os_mono now)
{
	list_each(node, &peers->buckets[key % BUCKETS]) {
		struct peer *peer = container_of(node, struct peer, bucket_link);

		if (peer->key != key)
			continue;
		if (peer->until.ns > now.ns) {
			list_remove(&peer->link);
			list_push_back(&peers->all, &peer->link);
			return peer;
		}
		forget(peers, peer);
		return NULL;
	}
	return NULL;
}

static struct peer *add(struct tls_peers *peers, uint64_t key, struct os_mono now)
{
	struct peer *peer = find(peers, key, now);

	if (peer)
		return peer;
	peer = calloc(1, sizeof(*peer));
	if (!peer)
		return NULL;
	if (peers->count == PEERS_MAX)
		forget(peers, container_of(peers->all.next, struct peer, link));
	peer->key = key;
	list_init(&peer->link);
	list_init(&peer->bucket_link);
	list_push_back(&peers->all, &peer->link);
	list_push_back(&peers->buckets[key % BUCKETS], &peer->bucket_link);
	peers->count++;
	return peer;
}

const struct tls_session *tls_peers_session(struct tls_peers *peers,
					    const struct os_address *address,
					    const struct tls_policy *policy, struct os_mono now)
{
	const struct peer *peer = find(peers, key_of(address, policy), now);

	return peer ? peer->session : NULL;
}

void tls_peers_keep(struct tls_peers *peers, const struct os_address *address,
		    const struct tls_policy *policy, struct tls_session *session,
		    struct os_mono now)
{
	struct peer *peer = add(peers, key_of(address, policy), now);

	if (!peer) {
		tls_session_destroy(session);
		return;
	}
	tls_session_destroy(peer->session);
	peer->session = session;
	peer->until = os_mono_add_ms(now, UINT64_C(1000) * tls_session_lifetime_s(session));
}

bool tls_peers_failed(struct tls_peers *peers, const struct os_address *address, struct os_mono now,
		      uint32_t ms)
{
	struct peer *peer = add(peers, key_of(address, NULL), now);

	if (peer)
		peer->until = os_mono_add_ms(now, ms);
	return peer != NULL;
}

bool tls_peers_has_failed(struct tls_peers *peers, const struct os_address *address,
			  struct os_mono now)
{
	return find(peers, key_of(address, NULL), now) != NULL;
}
