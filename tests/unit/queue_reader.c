/* Single messages by their place: verified, or said to be gone, damaged or not to be read. */
#include "queue/reader.h"

#include <sys/resource.h>

#include "queue/queue.h"
#include "tests/unit/queue_spool.h"
#include "tests/unit/read_refuse.h"

enum { PAGES = 64, SEGMENT = 0x10, ID = 77 };

struct scene {
	struct spool *spool;
	struct spool_file segment;
	int segments, big;
	struct reader *reader;
	struct reader_message message;
};

static struct scene scene_make(void)
{
	struct scene scene = { .spool = spool_make(true) };
	char path[128];

	scene.segment = spool_file(scene.spool, FORMAT_HOT, SEGMENT, PAGES);
	snprintf(path, sizeof(path), "%s/seg", scene.spool->path);
	scene.segments = open(path, O_RDONLY | O_DIRECTORY);
	snprintf(path, sizeof(path), "%s/big", scene.spool->path);
	scene.big = open(path, O_RDONLY | O_DIRECTORY);
	scene.reader = reader_create(scene.segments, scene.big);
	return scene;
}

static void scene_end(struct scene *scene)
{
	reader_destroy(scene->reader);
	close(scene->segment.fd);
	close(scene->segments);
	close(scene->big);
	spool_remove(scene->spool);
}

static enum reader_status read_one(struct scene *scene, uint64_t id, uint32_t place)
{
	return reader_message(scene->reader, id, SEGMENT, place, &scene->message);
}

static void append_piece(void *context, struct span piece)
{
	strncat(context, piece.at, piece.len);
}

static void a_message_is_read_whole(void **state)
{
	struct scene scene = scene_make();
	uint32_t place = spool_message(
		&scene.segment, &(struct spool_message){ .id = ID, .recipients = "a@b c@d" });
	char body[256] = "";

	(void)state;
	assert_int_equal(read_one(&scene, ID, place), READER_OK);
	assert_int_equal(envelope_count(scene.message.envelope), 2);
	assert_int_equal(reader_body(scene.reader, &scene.message, append_piece, body), READER_OK);
	assert_string_equal(body, "Subject: x\r\n\r\nbody\r\n");
	scene_end(&scene);
}

static void an_envelope_longer_than_the_first_read_is_read_whole(void **state)
{
	struct scene scene = scene_make();
	char *recipients = calloc(1, 20000);
	uint32_t place;

	(void)state;
	for (int i = 0; i < 1000; i++)
		sprintf(recipients + strlen(recipients), "name%d@b ", i);
	place = spool_message(&scene.segment,
			      &(struct spool_message){ .id = ID, .recipients = recipients });
	assert_int_equal(read_one(&scene, ID, place), READER_OK);
	assert_int_equal(envelope_count(scene.message.envelope), 1000);
	free(recipients);
	scene_end(&scene);
}

static void what_is_not_there_is_gone(void **state)
{
	struct scene scene = scene_make();
	uint32_t place = spool_message(&scene.segment,
				       &(struct spool_message){ .id = ID, .recipients = "a@b" });

	(void)state;
	assert_int_equal(read_one(&scene, ID + 1, place), READER_GONE);
	assert_int_equal(read_one(&scene, ID, place + 1), READER_GONE);
	assert_int_equal(read_one(&scene, ID, UINT32_MAX), READER_GONE);
	assert_int_equal(reader_message(scene.reader, ID, 0x99, place, &scene.message),
			 READER_GONE);
	assert_int_equal(reader_message(scene.reader, ID, 0, place, &scene.message), READER_GONE);
	scene_end(&scene);
}

static void the_same_bytes_of_another_life_are_gone(void **state)
{
	struct scene scene = scene_make();
	struct spool_file old = scene.segment;
	uint32_t place;

	(void)state;
	old.sequence = 3;
	place = spool_message(&old, &(struct spool_message){ .id = ID, .recipients = "a@b" });
	assert_int_equal(read_one(&scene, ID, place), READER_GONE);
	scene_end(&scene);
}

static void damage_is_told(void **state)
{
	struct scene scene = scene_make();
	struct spool_message message = { .id = ID, .recipients = "a@b" };
	uint32_t one = spool_message(&scene.segment, &message);
	uint32_t two = spool_message(&scene.segment, &message);
	char body[256] = "";

	(void)state;
	spool_damage(&scene.segment, (uint64_t)one * 8 + 64 + 6, 1); /* the envelope */
	assert_int_equal(read_one(&scene, ID, one), READER_DAMAGED);
	assert_int_equal(read_one(&scene, ID, two), READER_OK);
	spool_damage(&scene.segment, scene.message.body_at + 3, 1);
	assert_int_equal(reader_body(scene.reader, &scene.message, append_piece, body),
			 READER_DAMAGED);
	assert_string_equal(body, "");
	scene_end(&scene);
}

/* The limit of open files; returns what it was. */
static rlim_t files_limit(rlim_t files)
{
	struct rlimit limit;
	rlim_t before;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	before = limit.rlim_cur;
	limit.rlim_cur = files;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	return before;
}

/* Neither gone nor damaged, and read when that has passed. */
static void what_cannot_be_read_now_is_told_as_that(void **state)
{
	struct scene scene = scene_make();
	uint32_t place = spool_message(&scene.segment,
				       &(struct spool_message){ .id = ID, .recipients = "a@b" });
	rlim_t before = files_limit(0);
	char body[256] = "";

	(void)state;
	assert_int_equal(read_one(&scene, ID, place), READER_UNREADABLE);
	files_limit(before);
	make_unreadable(scene.segment.fd, FORMAT_PAGE_BYTES, FORMAT_PAGE_BYTES);
	assert_int_equal(read_one(&scene, ID, place), READER_UNREADABLE);
	unreadable.count = 0;
	assert_int_equal(read_one(&scene, ID, place), READER_OK);
	make_unreadable(scene.segment.fd, scene.message.body_at, 1);
	assert_int_equal(reader_body(scene.reader, &scene.message, append_piece, body),
			 READER_UNREADABLE);
	assert_string_equal(body, "");
	unreadable.count = 0;
	assert_int_equal(reader_body(scene.reader, &scene.message, append_piece, body), READER_OK);
	scene_end(&scene);
}

/* A body in big/ that is as long as a number can say, in no pieces. */
static void a_senseless_size_is_damage(void **state)
{
	struct scene scene = scene_make();
	struct spool_message plain = { .id = ID, .recipients = "a@b" };
	uint32_t place = spool_message(&scene.segment, &plain);
	struct format_big big = { .bytes = UINT64_MAX };
	struct format_message head;
	char name[QUEUE_ID_TEXT_BYTES], body[256] = "";

	(void)state;
	assert_int_equal(read_one(&scene, ID, place), READER_OK);
	head = scene.message.head;
	head.flags = FORMAT_BIG;
	head.body_bytes = UINT64_MAX;
	head.body_crc = crc_of(&big, sizeof(big));
	head.crc = crc_record(SEGMENT, &head, sizeof(head), offsetof(struct format_message, crc));
	pwrite(scene.segment.fd, &head, sizeof(head), (off_t)place * FORMAT_RECORD_ALIGN);
	pwrite(scene.segment.fd, &big, sizeof(big), (off_t)scene.message.body_at);
	queue_id_text(ID, name);
	close(openat(scene.big, name, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(read_one(&scene, ID, place), READER_OK);
	assert_int_equal(reader_body(scene.reader, &scene.message, append_piece, body),
			 READER_DAMAGED);
	scene_end(&scene);
}

static void many_segments_are_read_in_turn(void **state)
{
	struct scene scene = scene_make();
	uint32_t places[100];

	(void)state;
	for (uint32_t i = 0; i < 100; i++) {
		struct spool_file file = spool_file(scene.spool, FORMAT_HOT, 0x100 + i, 8);

		places[i] = spool_message(&file,
					  &(struct spool_message){ .id = i, .recipients = "a@b" });
		close(file.fd);
	}
	for (uint32_t round = 0; round < 2; round++)
		for (uint32_t i = 0; i < 100; i++)
			assert_int_equal(reader_message(scene.reader, i, 0x100 + i, places[i],
							&scene.message),
					 READER_OK);
	scene_end(&scene);
}

int main(void)
{
	static const struct CMUnitTest facts[] = {
		cmocka_unit_test(a_message_is_read_whole),
		cmocka_unit_test(an_envelope_longer_than_the_first_read_is_read_whole),
		cmocka_unit_test(what_is_not_there_is_gone),
		cmocka_unit_test(the_same_bytes_of_another_life_are_gone),
		cmocka_unit_test(damage_is_told),
		cmocka_unit_test(what_cannot_be_read_now_is_told_as_that),
		cmocka_unit_test(a_senseless_size_is_damage),
		cmocka_unit_test(many_segments_are_read_in_turn),
	};

	return cmocka_run_group_tests(facts, NULL, NULL);
}
