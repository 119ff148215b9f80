/*
 * cases - what the micro-benchmarks run, in C; micro.cc hands them to Google Benchmark.
 *
 * A case may not be run by two threads at once.
 */
#ifndef BENCH_CASES_CASES_H
#define BENCH_CASES_CASES_H

#ifdef __cplusplus
extern "C" {
#endif

#include <stddef.h>
#include <stdint.h>

struct micro_case {
	const char *name;
	/* Before the clock starts; `argument` is the case's own. NULL: nothing to prepare. */
	void *(*begin)(uint64_t argument);
	/* One iteration; returns how many items it did. */
	uint64_t (*run)(void *context);
	void (*end)(void *context);
	uint64_t argument;
	uint64_t item_bytes; /* of one item; 0: not counted */
};

/* Each list ends with a case without a name. */
extern const struct micro_case micro_smtp_cases[];
extern const struct micro_case micro_engine_cases[];
extern const struct micro_case micro_queue_cases[];
extern const struct micro_case micro_index_cases[];
extern const struct micro_case micro_dkim_cases[];
extern const struct micro_case micro_tls_cases[];

/* Once, before any case. */
void micro_start(void);

#ifdef __cplusplus
}
#endif

#endif
