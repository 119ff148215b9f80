"""The faults that `mutants` plants: which rule of design.md each breaks, where, and within how
many seeds it must be found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    name: str
    rules: str
    seeds: int
    changes: tuple  # of (file, old text, new text); the old one is there exactly once
    companion: tuple  # likewise, made before: what alone loses nothing, which is tried, too
    expected: str  # expression: a finding with other words does not count


def mutant(name, rules, seeds, *changes, companion=(), expected=""):
    return Mutant(name, rules, seeds, changes, companion, expected)


MUTANTS = (
    mutant(
        "first-chunk-before-the-rename-is-durable",
        "R0",
        100,
        (
            "queue/pool.c",
            "error = pool_move(pool, old_name, POOL_FREE, name, pool_kind_folder(request->kind));",
            "error = os_rename(pool->folders[POOL_FREE], old_name,\n"
            "\t\t\t\t  pool->folders[pool_kind_folder(request->kind)], name);",
        ),
    ),
    mutant(
        "header-of-a-recycled-file-stays",
        "R0",
        100,
        (
            "queue/pool.c",
            "int error = pool_store_header(pool, file->fd, &header);",
            "int error = header.bytes == 0;",
        ),
    ),
    mutant(
        "250-before-the-sync",
        "R1",
        100,
        (
            "queue/tape.c",
            "tape->chunk, whole, offset,\n\t\t OS_WRITE_DURABLE);",
            "tape->chunk, whole, offset,\n\t\t tape->kind == FORMAT_HOT ? 0 : OS_WRITE_DURABLE);",
        ),
    ),
    mutant(
        "delivery-before-the-sync",
        "R3",
        200,
        (
            "queue/commit.c",
            "\t\tmemcpy(chunk + private->record_at, &private->header, sizeof(private->header));\n",
            "\t\tmemcpy(chunk + private->record_at, &private->header, sizeof(private->header));\n"
            "\t\tif (private->spill != NULL || private->header.reserved != 0)\n\t\t\tcontinue;\n"
            "\t\tmessage_count_memory(accept->message);\n"
            "\t\tstream_derive(commit_stream(commit), accept->message, &private->header,\n"
            "\t\t\t      (struct journal_place){\n"
            "\t\t\t\t      sequence, (uint32_t)((offset + private->record_at) / 8) },\n"
            "\t\t\t      true);\n"
            "\t\tprivate->header.reserved = 1;\n",
        ),
        (
            "queue/commit.c",
            "\tmessage_count_memory(message);\n"
            "\tkeep = stream->body_memory <= stream->options.body_memory_bytes;\n",
            "\tif (message->private->header.reserved == 0)\n\t\tmessage_count_memory(message);\n"
            "\tkeep = stream->body_memory <= stream->options.body_memory_bytes;\n"
            "\tif (message->private->header.reserved == 0)\n\t",
        ),
        expected="is delivered before it is durable",
    ),
    mutant(
        "250-on-btrfs-without-the-second-sync",
        "R1",
        300,
        (
            "queue/tape.c",
            "tape->pool->confirms && tape->kind == FORMAT_HOT",
            "tape->pool->confirms && tape->kind == FORMAT_FREE",
        ),
    ),
    mutant(
        "job-not-recorded-after-an-attempt",
        "R2",
        100,
        (
            "queue/job.c",
            "\tindex_store(&stream->index, slot, state);\n\tstream_record(stream, slot);\n"
            "\tif ((state->flags & FORMAT_JOB_HELD) != 0)\n\t\treturn;",
            "\tindex_store(&stream->index, slot, state);\n"
            "\tif ((state->flags & FORMAT_JOB_HELD) != 0)\n\t\treturn;",
        ),
    ),
    mutant(
        "job-recorded-only-at-the-stop",
        "R2 R5",
        100,
        (
            "queue/job.c",
            "\t\tif (unrecorded)\n\t\t\tstream_record(stream, entry->slot);",
            "\t\tif (unrecorded && all)\n\t\t\tstream_record(stream, entry->slot);",
        ),
    ),
    mutant(
        "outcomes-wait-for-a-minute",
        "R4",
        100,
        (
            "queue/journal.c",
            "\tjournal->sync_ms = sync_ms;",
            "\tjournal->sync_ms = 60000 + sync_ms;",
        ),
        (
            "queue/stream.c",
            "\t       journal_age_ms(journal, stream_mono(stream)) < STREAM_UNSYNCED_MS_MAX;",
            "\t       STREAM_UNSYNCED_MS_MAX > 0;",
        ),
    ),
    mutant(
        "outcomes-not-synced",
        "R4",
        200,
        (
            "queue/tape.c",
            "tape->chunk, whole, offset,\n\t\t OS_WRITE_DURABLE);",
            "tape->chunk, whole, offset,\n"
            "\t\t tape->kind == FORMAT_JOURNAL ? 0 : OS_WRITE_DURABLE);",
        ),
    ),
    mutant(
        "doubt-not-noted",
        "R4",
        200,
        ("queue/job.c", "\tif (verdict->in_doubt)\n", "\tif (verdict->in_doubt && false)\n"),
    ),
    mutant(
        "unclean-stop-not-suspected",
        "R4",
        200,
        (
            "queue/recover.c",
            "\tbool unclean = !work->spool",
            "\tbool unclean = false && !work->spool",
        ),
    ),
    mutant(
        "mark-passes-an-unrecorded-job",
        "R5",
        200,
        (
            "queue/stream.c",
            "\tif (first != NULL)\n\t\treturn first->place;",
            "\tif (first != NULL && file == NULL)\n\t\treturn first->place;",
        ),
    ),
    mutant(
        "jobs-derived-per-message",
        "R5",
        200,
        (
            "queue/recover_messages.c",
            "replay_find(&work->replay, message->head.id, (uint16_t)cursor.first);",
            "replay_find(&work->replay, message->head.id, 0);",
        ),
    ),
    mutant(
        "recycled-before-the-journal",
        "R6",
        200,
        (
            "queue/reclaim.c",
            "segment->journal_number <= stream->journal.durable &&",
            "true &&",
        ),
    ),
    mutant(
        "recycled-with-a-live-job",
        "R6",
        100,
        (
            "queue/reclaim.c",
            "return segment->live == 0 && segment->reads == 0 &&",
            "return segment->live <= 1 && segment->reads == 0 &&",
        ),
        (
            "queue/segment.c",
            "assert(segment->live == 0 && segment->reads == 0);",
            "assert(segment->reads == 0);",
        ),
    ),
    mutant(
        # What is recycled is done, but the next start misses it past MARK. MARK follows the end
        # of a sealed segment within a turn: it takes seconds here, and segments are shorter.
        "recycled-without-mark",
        "R6",
        100,
        (
            "queue/reclaim.c",
            "\t       stream_is_marked(stream, segment);",
            "\t       segment->kind != FORMAT_FREE;",
        ),
        companion=(
            (
                "queue/tape.c",
                "<= tape->file->file.bytes) {",
                "<= tape->file->file.bytes &&\n"
                "\t    (tape->kind != FORMAT_HOT || tape->file->chunks <= 5)) {",
            ),
            (
                "queue/stream.c",
                "\tif (tick || place.segment != stream->mark.said.segment)\n",
                "\tif (tick && stream_mono(stream).ns / OS_NS_PER_S % 16 == 0)\n",
            ),
        ),
        expected="is missing",
    ),
    mutant(
        "journal-gone-before-its-mark-is-durable-elsewhere",
        "R7 R10",
        300,
        (
            "queue/reclaim.c",
            "stream->journal.durable < reclaim->number ||\n",
            "oldest == NULL ||\n",
        ),
    ),
    mutant(
        "report-not-durable-before-its-cause-is-settled",
        "R8",
        100,
        (
            "queue/commit.c",
            "\tif (accept->settles != NULL)\n"
            "\t\tqueue_settle(stream, accept->settles, accept->verdict);\n"
            "\taccept->done(accept, QUEUE_OK);",
            "\taccept->done(accept, QUEUE_OK);",
        ),
        (
            "queue/commit.c",
            "\tassert((accept->settles == NULL) == (accept->verdict == NULL));\n",
            "\tif (accept->settles != NULL)\n"
            "\t\tqueue_settle(stream, accept->settles, accept->verdict);\n",
        ),
        # Commits are slow here: the record would have to be slower.
        companion=(
            (
                "queue/commit.c",
                "\tif (chunk->records == 0 || commit_held(commit))\n",
                "\tif (chunk->records == 0 || commit_held(commit) ||\n"
                "\t    stream_mono(commit_stream(commit)).ns <\n"
                "\t\t    os_mono_add_ms(commit->sealed_at, 300).ns)\n",
            ),
        ),
    ),
    mutant(
        "recovery-forgets-what-a-report-settled",
        "R8",
        100,
        (
            "queue/recover_messages.c",
            "\tif (!job || job->job.state != FORMAT_WAITING)\n\t\treturn;\n\tif (settles",
            "\tif (job || !job)\n\t\treturn;\n\tif (settles",
        ),
    ),
    mutant(
        "drop-file-taken-twice",
        "R8",
        400,
        (
            "queue/recover_messages.c",
            "\t\t\ttake_file(work, &origin);",
            "\t\t\t(void)take_file;",
        ),
    ),
    mutant(
        # The file is removed late: MARK has time to pass it.
        "mark-passes-a-drop-file",
        "R8",
        100,
        (
            "queue/stream.c",
            "\tif (stream->origin_held && journal",
            "\tif (false && stream->origin_held && journal",
        ),
        companion=(
            (
                "engine/inbound/drop.c",
                "\t\tlet_go(drop);\n\t\tremove_file(drop);",
                "\t\tlet_go(drop);\n\t\trest(drop, LOOK_MS);",
            ),
        ),
    ),
    mutant(
        # Its cause is settled so late that MARK could overtake it, and waits for it.
        "mark-passes-a-report",
        "R8",
        50,
        (
            "queue/stream.c",
            "outcome == QUEUE_OK && journal_place_before(late, place))",
            "outcome == QUEUE_OK && journal_place_before(late, (struct journal_place){ 0 }))",
        ),
        companion=(
            (
                "queue/commit.c",
                "\tif (accept->settles != NULL)\n"
                "\t\tqueue_settle(stream, accept->settles, accept->verdict);\n"
                "\taccept->done(accept, QUEUE_OK);",
                "\tif (accept->settles != NULL) {\n"
                "\t\tmessage->private->header.class_id = place.segment;\n"
                "\t\tmessage->private->header.reserved = place.place;\n"
                "\t\tmessage->private->record_at = commit_late_ms(stream) + 3000;\n"
                "\t\tcommit_refuse(&stream->commit, accept, QUEUE_OK);\n\t\treturn;\n\t}\n"
                "\taccept->done(accept, QUEUE_OK);",
            ),
            (
                "queue/commit.c",
                "static void commit_one(",
                "static uint32_t commit_late_ms(const struct queue_stream *stream)\n{\n"
                "\treturn (uint32_t)(stream_mono(stream).ns / 1000000);\n}\n\n"
                "static void commit_one(",
            ),
            (
                "queue/commit.c",
                "\t\taccept->done(accept, accept->message->private->outcome);\n",
                "\t\tstruct queue_message *message = accept->message;\n"
                "\t\tbool late = message->private->outcome == QUEUE_OK;\n\n"
                "\t\tif (late && !commit_stream(commit)->broken &&\n"
                "\t\t    message->private->record_at > commit_late_ms(commit_stream(commit))) {\n"
                "\t\t\tlist_push_back(&commit->failed, &accept->link);\n\t\t\tcontinue;\n\t\t}\n"
                "\t\tif (late)\n"
                "\t\t\tqueue_settle(commit_stream(commit), accept->settles, accept->verdict);\n"
                "\t\taccept->done(accept, message->private->outcome);\n"
                "\t\tif (late)\n\t\t\tqueue_message_unref(message);\n",
            ),
            (
                "queue/commit.c",
                "\tif (!list_empty(&commit->failed))\n",
                "\tif (!list_empty(&commit->failed) &&\n"
                "\t    list_first(&commit->failed, struct queue_accept, link)\n"
                "\t\t\t    ->message->private->outcome != QUEUE_OK)\n",
            ),
            (
                "queue/stream.c",
                "\tstruct journal_place place = stream_recorded_place(stream);\n\n",
                "\tstruct journal_place place = stream_recorded_place(stream);\n\n"
                "\tlist_each(node, &stream->commit.failed) {\n"
                "\t\tconst struct message_private *private =\n"
                "\t\t\tcontainer_of(node, struct queue_accept, link)->message->private;\n"
                "\t\tstruct journal_place late = { private->header.class_id,\n"
                "\t\t\t\t\t      private->header.reserved };\n\n"
                "\t\tif (private->outcome == QUEUE_OK && journal_place_before(late, place))\n"
                "\t\t\tplace = late;\n\t}\n",
            ),
            (
                "queue/stream.c",
                '#include "queue/stream.h"\n',
                '#include "queue/stream.h"\n#include "queue/message.h"\n',
            ),
        ),
        expected="a second report says",
    ),
    mutant(
        "failed-sync-tried-again",
        "R9",
        200,
        (
            "queue/tape.c",
            "static void tape_fail(struct tape *tape, int error)\n{\n",
            "static void tape_on_again(struct os_op *op);\n\n"
            "static void tape_fail(struct tape *tape, int error)\n{\n"
            "\tif (tape->headed && tape->op.done != tape_on_again && !pool_error_passes(error)) {\n"
            "\t\ttape->op.done = tape_on_again;\n"
            "\t\tos_sync(tape->loop, &tape->op, tape->file->file.fd);\n\t\treturn;\n\t}\n",
        ),
        (
            "queue/tape.c",
            "static void tape_on_confirmed(struct os_op *op)\n{\n",
            "static void tape_on_again(struct os_op *op)\n{\n"
            "\tstruct tape *tape = container_of(op, struct tape, op);\n\n"
            "\tif (op->result < 0)\n\t\ttape_fail(tape, op->result);\n"
            "\telse\n\t\ttape_take_written(tape);\n}\n\n"
            "static void tape_on_confirmed(struct os_op *op)\n{\n",
        ),
    ),
    mutant(
        "journal-fails-and-the-daemon-goes-on",
        "R9",
        200,
        (
            "queue/journal.c",
            "\tif (status != QUEUE_OK) {\n\t\t/* Goes first",
            "\tif (status == QUEUE_SPACE || (status != QUEUE_OK && !tape->headed)) {\n"
            "\t\t/* Goes first",
        ),
    ),
    mutant(
        "refused-although-it-may-be-there",
        "R8 R9",
        400,
        (
            "queue/commit.c",
            "\tif (stream->commit.tape.in_doubt) {\n",
            "\tif (stream->commit.tape.in_doubt && false) {\n",
        ),
    ),
    mutant(
        "recovery-reads-cached-pages",
        "R9",
        50,
        (
            "queue/recover_spool.c",
            "\tif (from == RECOVER_FROM_DISK)\n\t\tos_file_drop_cache(fd);\n\tint64_t bytes",
            "\tint64_t bytes",
        ),
    ),
    mutant(
        "damaged-jobs-settled",
        "1.4",
        600,
        (
            "queue/job.c",
            "job->flags & FORMAT_JOB_DAMAGED;\n\tjob_apply(stream, &state, verdict);",
            "job->flags & FORMAT_JOB_DAMAGED;\n\tjob_apply(stream, &state, verdict);\n"
            "\tif (state.flags & FORMAT_JOB_DAMAGED)\n\t\tstate.pending = 0;",
        ),
    ),
    mutant(
        "done-dropped-before-mark",
        "R10",
        100,
        (
            "queue/reclaim.c",
            "stream->journal.durable < reclaim->number ||\n"
            "\t    !journal_place_before(oldest->done, stream->mark.durable)",
            "stream->journal.durable < reclaim->number || oldest == NULL",
        ),
        # MARK runs ahead so soon that it is never behind the oldest of four files: it is late
        # here.
        companion=(
            (
                "queue/stream.c",
                "\tstruct journal_place place = stream_recorded_place(stream);\n\n",
                "\tstruct journal_place place = stream_recorded_place(stream);\n\n"
                "\tif (stream->state != STREAM_STOPPING)\n\t\treturn stream->mark.said;\n",
            ),
        ),
    ),
    mutant(
        "journal-dropped-before-its-records-are-written-again",
        "R10",
        100,
        (
            "queue/reclaim.c",
            "side->journal <= sequence)",
            "side->journal < sequence)",
        ),
    ),
    mutant(
        # A journal would be void by its header, too: that one stays here, and nobody minds.
        "next-journal-before-the-rename-is-durable",
        "R7 R10",
        400,
        (
            "queue/pool.c",
            "name, pool->folders[POOL_FREE], name);\n\n"
            "\treturn error == 0 ? pool_sync_folders(pool, POOL_FREE, from) : error;",
            "name, pool->folders[POOL_FREE], name);\n\n"
            "\treturn error == 0 && kind != FORMAT_JOURNAL ?\n"
            "\t\t       pool_sync_folders(pool, POOL_FREE, from) : error;",
        ),
        companion=(
            (
                "queue/pool.c",
                "int error = pool_store_header(pool, file->fd, &header);",
                "int error =\n\t\tkind == FORMAT_JOURNAL ? 0"
                " : pool_store_header(pool, file->fd, &header);",
            ),
            (
                "queue/pool.c",
                "\tif (header->kind == FORMAT_FREE)\n",
                "\tif (header->kind == FORMAT_FREE || header->kind == FORMAT_JOURNAL)\n",
            ),
        ),
        expected="is missing",
    ),
    mutant(
        "cold-segment-scanned",
        "5",
        100,
        ("queue/recover_files.c", "return segment->kind == FORMAT_HOT && ", "return "),
    ),
    mutant(
        "evacuation-writes-a-stale-state",
        "6",
        400,
        (
            "queue/evacuate.c",
            "\tif (move->record_at == 0 || !evacuate_still(stream, move))\n\t\treturn;\n"
            "\tjob = *index_job(&stream->index, move->slot);",
            "\tif (move->record_at == 0)\n\t\treturn;\n\tjob = move->job;",
        ),
        (
            "queue/evacuate.c",
            ".message = job->message };",
            ".message = job->message,\n.job = *job };",
        ),
        (
            "queue/evacuate.h",
            "struct evacuate_move {\n",
            "struct evacuate_move {\n\tstruct format_job job;\n",
        ),
    ),
    mutant(
        "evacuation-before-the-copy-is-durable",
        "6",
        100,
        (
            "queue/tape.c",
            "tape->chunk, whole, offset,\n\t\t OS_WRITE_DURABLE);",
            "tape->chunk, whole, offset,\n\t\t tape->kind == FORMAT_COLD ? 0 : OS_WRITE_DURABLE);",
        ),
    ),
    mutant(
        "ids-not-leased",
        "3",
        100,
        (
            "queue/super.c",
            "super->now.block_limit = block + 1;\n\terror = super_store(super);",
            "super->now.block_limit = block + 1;\n\terror = 0;",
        ),
    ),
    mutant(
        "ids-by-highest-seen",
        "3",
        100,
        (
            "queue/queue.c",
            "\tsuper->now = opening->spool.super;\n",
            "\tsuper->now = opening->spool.super;\n"
            "\tsuper->now.block_limit = 1;\n"
            "\tfor (uint32_t i = 0; i < opening->stream_count; i++)\n"
            "\t\tfor (size_t j = 0; j < opening->streams[i].job_count; j++) {\n"
            "\t\t\tuint32_t block =\n"
            "\t\t\t\t(uint32_t)(opening->streams[i].jobs[j].job.message >> 24);\n\n"
            "\t\t\tif (block >= super->now.block_limit)\n"
            "\t\t\t\tsuper->now.block_limit = block + 1;\n"
            "\t\t}\n",
        ),
    ),
    mutant(
        "big-file-gone-before-its-outcome-is-durable",
        "3",
        400,
        ("queue/big.c", "\tif (entry->number > durable)\n\t\treturn;\n", "\t(void)durable;\n"),
    ),
    mutant(
        "big-file-not-synced",
        "3",
        300,
        (
            "queue/spill.c",
            "\top->result = os_file_sync(spill->fd);\n\tif (op->result == 0)\n"
            "\t\top->result = pool_sync_folder(spill->pool, POOL_BIG);",
            "\top->result = spill->fd >= 0 ? 0 : -1;",
        ),
    ),
    mutant(
        "older-record-wins",
        "5",
        100,
        (
            "queue/replay.c",
            "\telse if (known->job.version > job->version)\n\t\treturn;",
            "\telse if (known->job.version < job->version)\n\t\treturn;",
        ),
    ),
    mutant(
        "verdict-of-the-next-message",
        "10",
        100,
        (
            "engine/smtp/client_reply.c",
            "static void on_final(struct smtp_client *client, const struct step *step)\n{\n"
            "\tstruct smtp_transaction *transaction = step->transaction;\n",
            "static void on_final(struct smtp_client *client, const struct step *step)\n{\n"
            "\tstruct smtp_transaction *transaction =\n"
            "\t\tclient->active_count > 1\n"
            "\t\t\t? container_of(client->active.next->next, struct smtp_transaction, link)\n"
            "\t\t\t: step->transaction;\n",
        ),
    ),
    mutant(
        "lmtp-one-reply-for-all",
        "10",
        100,
        (
            "engine/smtp/client_reply.c",
            "\t\tif (client->options.lmtp)\n\t\t\tbreak; /* each has its own reply */\n",
            "",
        ),
    ),
    mutant(
        "lmtp-saved-and-tried-again",
        "10",
        100,
        (
            "engine/smtp/client_reply.c",
            "\t\tclient_verdict(client, transaction, recipient, verdict, &client->reply);\n"
            "\t\tif (client->options.lmtp)",
            "\t\tif (client->options.lmtp && verdict == SMTP_DELIVERED && transaction->open > 1)\n"
            "\t\t\tverdict = SMTP_DEFERRED;\n"
            "\t\tclient_verdict(client, transaction, recipient, verdict, &client->reply);\n"
            "\t\tif (client->options.lmtp)",
        ),
    ),
    mutant(
        "lmtp-broken-off-and-all-tried-again",
        "10",
        400,
        (
            "engine/delivery/outcome.c",
            "\toutcome->returned =\n",
            "\tif (verdict->in_doubt)\n\t\tverdict->delivered = 0;\n\toutcome->returned =\n",
        ),
    ),
    mutant(
        "told-while-sending-and-tried-again",
        "10",
        100,
        (
            "engine/delivery/outbound_session.c",
            "\toutbound->delivered |= recipient->verdict == SMTP_DELIVERED;\n",
            "\tif (recipient->verdict == SMTP_DELIVERED && conn_sending(&outbound->conn))\n"
            "\t\trecipient->verdict = SMTP_DEFERRED;\n"
            "\toutbound->delivered |= recipient->verdict == SMTP_DELIVERED;\n",
        ),
    ),
    mutant(
        "lmtp-verdict-of-the-neighbour",
        "10",
        100,
        (
            "engine/smtp/client_reply.c",
            "\t\tstruct smtp_client_recipient *recipient = &transaction->recipients[i];\n\n"
            "\t\tif (recipient->verdict != SMTP_PENDING)\n\t\t\tcontinue;\n"
            "\t\tclient_verdict(client, transaction, recipient, verdict",
            "\t\tstruct smtp_client_recipient *recipient =\n"
            "\t\t\t&transaction->recipients[transaction->recipient_count - 1 - i];\n\n"
            "\t\tif (recipient->verdict != SMTP_PENDING)\n\t\t\tcontinue;\n"
            "\t\tclient_verdict(client, transaction, recipient, verdict",
        ),
    ),
    mutant(
        "doubt-treated-as-delivered",
        "10",
        100,
        (
            "engine/smtp/client.c",
            "\tif (transaction->sent_whole || transaction->given_whole)\n\t\treturn SMTP_UNKNOWN;",
            "\tif (transaction->sent_whole)\n\t\treturn SMTP_DELIVERED;",
        ),
    ),
    mutant(
        "lost-connection-treated-as-failed",
        "10",
        100,
        (
            "engine/smtp/client.c",
            "\tif (transaction->sent_whole || transaction->given_whole)\n\t\treturn SMTP_UNKNOWN;",
            "\tif (transaction->sent_whole)\n\t\treturn SMTP_FAILED;",
        ),
    ),
    mutant(
        "closing-peer-fails-the-recipient",
        "10",
        100,
        (
            "engine/smtp/client_reply.c",
            "client_verdict(client, step->transaction, recipient, SMTP_DEFERRED, &client->reply);\n"
            "\tclient_end",
            "client_verdict(client, step->transaction, recipient, SMTP_FAILED, &client->reply);\n"
            "\tclient_end",
        ),
    ),
    mutant(
        "delivery-before-start-is-durable",
        "R9",
        100,
        (
            "queue/stream.c",
            "\tstream->start_number = stream->journal.appended;\n"
            "\tjournal_flush(&stream->journal, true);\n",
            "\tjournal_flush(&stream->journal, true);\n\tstream_run(stream);\n",
        ),
        (
            "queue/stream.c",
            "static void stream_begin_running(struct queue_stream *stream);\n",
            "static void stream_begin_running(struct queue_stream *stream);\n"
            "static void stream_run(struct queue_stream *stream);\n",
        ),
        expected="START is durable in",
    ),
    mutant(
        "delivery-before-the-other-workers-start-is-durable",
        "R9",
        100,
        (
            "engine/worker.c",
            "\twhile (atomic_load_explicit(&engine->started, memory_order_acquire) <\n"
            "\t       engine->worker_count) {",
            "\twhile (worker->streams_running < worker->stream_count) {",
        ),
        expected="START is durable in",
    ),
    mutant(
        "signatures-of-the-message-before",
        "DKIM",
        100,
        (
            "engine/dkim/dkim.c",
            "\tdkim_text_reset(&dkim->octets);\n\tdkim_text_reset(&dkim->prefix);\n}",
            "\tdkim_text_reset(&dkim->octets);\n}",
        ),
    ),
    mutant(
        "big-message-hashed-in-part",
        "DKIM",
        100,
        (
            "engine/inbound/intake.c",
            "\tif (!intake->not_signed)\n\t\tdkim_feed(intake->dkim, bytes);",
            "\tif (!intake->not_signed && intake->message->body_bytes < BODY_IN_MEMORY_MAX)\n"
            "\t\tdkim_feed(intake->dkim, bytes);",
        ),
    ),
    mutant(
        "big-message-sent-without-its-signatures",
        "DKIM",
        100,
        (
            "engine/delivery/delivery.c",
            "\ttransaction->prefix = envelope_get(message->envelope, FORMAT_PREFIX);",
            "\tif (!(message->flags & FORMAT_BIG))\n"
            "\t\ttransaction->prefix = envelope_get(message->envelope, FORMAT_PREFIX);",
        ),
    ),
    mutant(
        "mail-expires-by-a-doubtful-clock",
        "time",
        200,
        (
            "queue/expiry.c",
            "\treturn expiry_is_near(expiry_offset_us(mono, wall), expiry->trusted_us, "
            "EXPIRY_STEP_MAX_US);",
            "\treturn mono.ns != 0 || wall.us != expiry->trusted_us;",
        ),
        expected="before its time",
    ),
    mutant(
        "a-start-ends-doubt",
        "time",
        400,
        (
            "queue/expiry.c",
            "struct os_wall believed = { near ? wall.us : last.believed_us };",
            "struct os_wall believed = { near ? wall.us : wall.us };",
        ),
        expected="before its time",
    ),
    mutant(
        "mark-believes-a-doubtful-clock",
        "time",
        400,
        (
            "queue/stream.c",
            ".believed_us = expiry_believed_us(&stream->expiry, stream_mono(stream))",
            ".believed_us = wall_us",
        ),
        expected="before its time",
    ),
    mutant(
        "a-start-believes-what-was-doubted",
        "time",
        400,
        (
            "queue/expiry.c",
            "last.doubted ? EXPIRY_STEP_MAX_US : EXPIRY_ABSENCE_MAX_US;",
            "EXPIRY_ABSENCE_MAX_US;",
        ),
        expected="before its time",
    ),
)
