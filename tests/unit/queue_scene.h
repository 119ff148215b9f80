/*
 * queue_scene - a spool of one stream, with a segment and a journal that tests write to.
 */
#ifndef QUEUE_SCENE_H
#define QUEUE_SCENE_H

#include "tests/unit/queue_spool.h"

enum { PAGES = 64, SEGMENT = 0x10, JOURNAL = 0x11, LATER_JOURNAL = 0x12, LATER_SEGMENT = 0x13 };

/* One segment and one journal, open for more. */
struct scene {
	struct spool *spool;
	struct spool_file segment, journal;
};

static inline struct scene scene_make(bool clean)
{
	struct scene scene = { .spool = spool_make(clean) };

	scene.segment = spool_file(scene.spool, FORMAT_HOT, SEGMENT, PAGES);
	scene.journal = spool_file(scene.spool, FORMAT_JOURNAL, JOURNAL, PAGES);
	spool_define(&scene.journal, FORMAT_DEST, 1, "b.example");
	return scene;
}

static inline void scene_end(struct scene *scene)
{
	close(scene->segment.fd);
	close(scene->journal.fd);
	spool_remove(scene->spool);
}

static inline uint32_t add_message(struct scene *scene, uint64_t id, const char *recipients)
{
	return spool_message(&scene->segment,
			     &(struct spool_message){ .id = id, .recipients = recipients });
}

static inline void add_state(struct scene *scene, struct format_job job)
{
	spool_record(&scene->journal, &job);
}

#endif
