/*
 * micro - the cases of bench/cases/ as Google Benchmarks.
 *
 * The time of an iteration is wall time: cases that write wait for the disk. items_per_second
 * counts messages, records, slots, commands: what the name says.
 */
#include <benchmark/benchmark.h>

#include "bench/cases/cases.h"

static void run(benchmark::State &state, const struct micro_case *one)
{
	void *context = one->begin != nullptr ? one->begin(one->argument) : nullptr;
	uint64_t items = 0;

	for (auto _ : state)
		items += one->run(context);
	if (one->end != nullptr)
		one->end(context);
	state.SetItemsProcessed(static_cast<int64_t>(items));
	if (one->item_bytes > 0)
		state.SetBytesProcessed(static_cast<int64_t>(items * one->item_bytes));
}

static void add(const struct micro_case *cases)
{
	for (const struct micro_case *one = cases; one->name != nullptr; one++)
		benchmark::RegisterBenchmark(one->name, run, one)->UseRealTime();
}

int main(int argc, char **argv)
{
	benchmark::Initialize(&argc, argv);
	if (benchmark::ReportUnrecognizedArguments(argc, argv))
		return 64;
	micro_start();
	add(micro_smtp_cases);
	add(micro_engine_cases);
	add(micro_queue_cases);
	add(micro_index_cases);
	add(micro_dkim_cases);
	add(micro_tls_cases);
	benchmark::RunSpecifiedBenchmarks();
	return 0;
}
