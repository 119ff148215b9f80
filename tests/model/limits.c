/* Workers that claim and give back connections of one site: engine/delivery/site_limits.c, and
 * connections_max(), claim_connection(), uncount_connection() and site_connection_gone() of
 * engine/delivery/site.c. The limit is not that of the route, but what the host was found to take.
 */
#include "tests/model/explore.h"

#include <stdlib.h>

#include "engine/config/config.h"
#include "engine/delivery/site.h"
#include "engine/delivery/sites.h"

#define calloc(count, bytes) model_memory((count) * (bytes))
#define free(at)	     ((void)(at))
#include "engine/delivery/site_limits.c"

#ifndef MODEL_WORKERS
#define MODEL_WORKERS 3
#define MODEL_ROUNDS  1
#endif
enum { WORKERS = MODEL_WORKERS, LIMIT = WORKERS - 1, ROUNDS = MODEL_ROUNDS, STARVING_MS = 1 };

static struct world {
	struct site sites[WORKERS];
	struct worker worker;
	struct config_route route;
	uint32_t used, claimed;
} * world;
static struct site_limits *limits;

struct os_mono os_loop_mono(const struct os_loop *loop)
{
	(void)loop;
	return (struct os_mono){ 0 };
}

uint32_t site_share(const struct site *site)
{
	(void)site;
	return 1;
}

void sites_try_again(struct site *site, uint32_t ms)
{
	(void)site;
	(void)ms;
}

void site_touch(struct site *site)
{
	(void)site;
}

/* The three functions, as they stand in engine/delivery/site.c. */
#include "engine/delivery/site.c"

static void worker_run(void *context)
{
	struct site *site = context;

	site->shared = site_limits_of(limits, 77);
	site_limit_keep(site->shared, os_loop_mono(NULL), LIMIT);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		if (!claim_connection(site))
			continue;
		site->connection_count++;
		site->connecting_count++;
		world->claimed++;
		model_check(++world->used <= LIMIT, "more connections than the limit");
		model_point(&world->used);
		world->used--;
		site_connection_gone(site, true);
	}
}

void model_start(void)
{
	world = model_memory(sizeof(*world));
	limits = site_limits_create(4);
	world->route.delivery.connections_max = WORKERS;
	for (uint32_t i = 0; i < WORKERS; i++) {
		world->sites[i].route = &world->route;
		world->sites[i].worker = &world->worker;
		model_thread(worker_run, &world->sites[i]);
	}
}

void model_end(void)
{
	for (uint32_t i = 1; i < WORKERS; i++)
		model_check(world->sites[i].shared == world->sites[0].shared,
			    "two entries for one site");
	model_check(world->sites[0].shared->connections == 0, "a connection leaked");
	model_check(world->claimed > 0, "nobody got a connection");
}
