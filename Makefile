# stafette - a queue delivery engine for e-mail. `make help` lists the targets.

VERSION := 0.1.0
BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
# 1: sendmail and newaliases as well, and mailq also if another mail server has put it there
SENDMAIL_COMPAT ?=
UNITDIR ?= $(PREFIX)/lib/systemd/system
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
CXX     ?= g++
SAN     ?=
V       ?=
Q       := $(if $(V),,@)
CLANG   := clang-14
CLANG_TIDY   := clang-tidy-14
CLANG_FORMAT := clang-format-14

CFLAGS ?= -O3 -g
ANY_CFLAGS := -Wall -Wextra -Werror -Wshadow -fno-strict-aliasing -fno-omit-frame-pointer -pthread \
	-I. -D_GNU_SOURCE -DSTAFETTE_VERSION='"$(VERSION)"' $(CFLAGS) \
	$(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -O1)
ALL_CFLAGS := -std=gnu17 -Wstrict-prototypes -Wmissing-prototypes $(ANY_CFLAGS)
LIBS := -luring -lcares -lresolv -lconfuse -lidn2 -lxxhash -lisal -lsystemd -lseccomp -lssl -lcrypto -lcrypt -lsodium $(if $(SAN),,-ljemalloc)
LINK  = $(Q)$(CC) -pthread $(if $(SAN),-fsanitize=$(SAN)) -o $@ \
	$(filter %.o,$^) $(filter %.a,$^) $(LIBS)

# A library per layer, lower layers last; the parts of the engine are one layer.
LAYERS   := engine engine/smtp queue os
PARTS    := $(addprefix engine/,auth config delivery dkim inbound log report tls)
MAINS    := engine/main.c
archive   = $(BUILD)/lib$(subst /,-,$(1)).a
object    = $(patsubst %.c,$(BUILD)/%.o,$(1))
ARCHIVES := $(foreach l,$(LAYERS),$(call archive,$(l)))
OS       := $(call archive,os)

TOOLS   := $(wildcard tools/*.c)
BENCHES := source sink ceiling
BENCH_SHARED := $(filter-out $(BENCHES:%=bench/%.c),$(wildcard bench/*.c))
UNITS   := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/unit/*.c))
FUZZERS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/fuzz/*.c))
MODELS  := $(wildcard tests/model/*.[ch])
FOLDERS := $(LAYERS) $(PARTS) tools bench bench/cases tests/unit tests/fuzz tests/sim tests/system
C_FILES := $(foreach f,$(FOLDERS),$(wildcard $(f)/*.c))
H_FILES := $(foreach f,$(FOLDERS),$(wildcard $(f)/*.h))

.PHONY: all
all: $(BUILD)/stafetted $(BUILD)/stafette ## the daemon and its tool

$(BUILD)/stafetted: $(BUILD)/engine/main.o $(ARCHIVES)
	$(LINK)
$(BUILD)/stafette: $(call object,$(TOOLS)) $(ARCHIVES)
	$(LINK) -ljansson

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/%.o: %.cc
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=gnu++17 $(ANY_CFLAGS) -MMD -MP -c -o $@ $<

define layer_rule
$(call archive,$(1)): $(call object,$(filter-out $(MAINS),$(wildcard $(2:%=%/*.c))))
	@mkdir -p $$(@D)
	$$(Q)rm -f $$@ && ar rcs $$@ $$^
endef
$(foreach l,$(LAYERS),$(eval $(call layer_rule,$(l),$(l) $(if $(filter engine,$(l)),$(PARTS)))))

# ── tests ───────────────────────────────────────────────────────────────────────────

# A test is named after its layer and links what that may use: queue_journal the queue and os.
$(BUILD)/tests/unit/os_%: $(BUILD)/tests/unit/os_%.o $(OS)
	$(LINK) -lcmocka
$(BUILD)/tests/unit/queue_%: $(BUILD)/tests/unit/queue_%.o $(call archive,queue) $(OS)
	$(LINK) -lcmocka
$(BUILD)/tests/unit/smtp_%: $(BUILD)/tests/unit/smtp_%.o $(call archive,engine/smtp) $(OS)
	$(LINK) -lcmocka
# These refuse memory: tests/unit/memory_refuse.h.
$(addprefix $(BUILD)/tests/unit/,smtp_memory queue_memory engine_conn engine_mx engine_users \
		engine_reload engine_worker): LIBS += $(addprefix -Wl$(comma)--wrap=,malloc calloc realloc strdup strndup)
# This one refuses syncs and names, and sees what is read.
$(BUILD)/tests/unit/queue_fault: LIBS += $(addprefix -Wl$(comma)--wrap=os_,sync rename file_open \
		file_sync file_read file_size file_drop_cache folder_list)
# This one has a clock of its own.
$(BUILD)/tests/unit/queue_index: LIBS += -Wl,--wrap=os_mono_now
# This one refuses files, and has a clock of its own.
$(BUILD)/tests/unit/engine_drop: LIBS += $(addprefix -Wl$(comma)--wrap=os_,rename file_open \
		file_facts file_read folder_list mono_now)
# And these refuse reads: tests/unit/read_refuse.h.
$(addprefix $(BUILD)/tests/unit/queue_,scan reader recover recover_spool): \
	LIBS += -Wl,--wrap=os_file_read
$(BUILD)/tests/unit/engine_%: $(BUILD)/tests/unit/engine_%.o $(ARCHIVES)
	$(LINK) -lcmocka -ljansson
$(BUILD)/tests/unit/tools_%: $(BUILD)/tests/unit/tools_%.o \
		$(call object,$(filter-out tools/stafette.c,$(TOOLS))) $(ARCHIVES)
	$(LINK) -lcmocka -ljansson
# Between stand-ins for the jobs.
$(BUILD)/tests/unit/tools_listing: $(BUILD)/tests/unit/tools_listing.o \
		$(call object,tools/listing.c tools/filter.c tools/idset.c) $(ARCHIVES)
	$(LINK) -lcmocka
# One part of the simulator, between stand-ins for the others: sim_disk links tests/sim/disk*.c.
.SECONDEXPANSION:
$(BUILD)/tests/unit/sim_%: $(BUILD)/tests/unit/sim_%.o \
		$$(call object,$$(wildcard tests/sim/$$*.c tests/sim/$$*_*.c))
	$(LINK) -lcmocka
$(BUILD)/tests/unit/sim_disk_tree: $(call object,$(wildcard tests/sim/disk*.c))
SIM_STAGE := $(call object,$(addprefix tests/sim/,fiber.c story.c arena.c)) $(BUILD)/os/loop.o \
	$(BUILD)/os/address.o
$(BUILD)/tests/unit/sim_net: $(SIM_STAGE)
$(BUILD)/tests/unit/sim_peer: $(SIM_STAGE) $(call object,$(wildcard tests/sim/net*.c)) \
	$(call archive,engine/smtp)
# What the scenarios with faults need: a disk that forgets, a clock that jumps.
FAULTS := $(BUILD)/tests/system/volatile_disk $(BUILD)/tests/system/wall_clock.so
$(BUILD)/tests/system/volatile_disk: $(BUILD)/tests/system/volatile_disk.o
	$(Q)$(CC) -pthread $(if $(SAN),-fsanitize=$(SAN)) -o $@ $^ -lfuse3
$(BUILD)/tests/system/wall_clock.so: tests/system/wall_clock.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -O2 -shared -fPIC -o $@ $<
# Fuzzers exist only in the build that `make fuzzers` starts.
$(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/%.o $(ARCHIVES)
	$(LINK) -ljansson -fsanitize=fuzzer
$(BUILD)/tests/fuzz/spool_recover: LIBS += $(addprefix -Wl$(comma)--wrap=,aligned_alloc free)
$(BUILD)/tests/fuzz/engine_tls: LIBS += $(addprefix -Wl$(comma)--wrap=,worker_self realloc \
	$(addprefix os_,recv send cancel close loop_mono loop_post))
$(BUILD)/tests/fuzz/engine_dovecot: LIBS += $(addprefix -Wl$(comma)--wrap=,os_loop_mono log_notice \
	$(addprefix conn_,connect recv send deadline close))
$(BUILD)/tests/fuzz/tools_handover: LIBS += $(addprefix -Wl$(comma)--wrap=,recv send close)
$(BUILD)/tests/fuzz/tools_%: $(BUILD)/tests/fuzz/tools_%.o \
		$(call object,$(addprefix tools/,filter.c handover.c idset.c mail_address.c mail_message.c)) \
		$(ARCHIVES)
	$(LINK) -fsanitize=fuzzer

# The simulator: the whole daemon over a seam of its own, without what calls the kernel.
SIM      := $(BUILD)/tests/sim/sim
SIM_DROP := $(call object,queue/envelope.c queue/crc.c queue/id.c engine/inbound/drop_file.c)
SIM_OS   := $(BUILD)/os/loop.o $(BUILD)/os/address.o
SIM_LIBS  = $(filter-out -luring -lcares -lresolv -lsystemd -lseccomp -ljemalloc,$(LIBS))
# What peers and messages make it allocate is refused at times: tests/sim/memory.h.
SIM_LEAN := $(call object,engine/conn.c $(wildcard $(addsuffix /*.c,queue \
	$(addprefix engine/,auth delivery inbound report smtp))))
SIM_REFUSED := $(foreach f,malloc calloc realloc aligned_alloc strdup strndup, \
	--redefine-sym $(f)=daemon_$(f))
$(BUILD)/tests/sim/lean.o: $(SIM_LEAN)
	@mkdir -p $(@D)
	$(Q)ld -r -o $@ $^
	$(Q)objcopy $(SIM_REFUSED) $@
# Mailboxes that are full at times: few letters are on their way at once.
$(BUILD)/tests/sim/mailbox.o: $(BUILD)/engine/mailbox.o
	@mkdir -p $(@D)
	$(Q)grep -q 'RING_LETTERS = 1024' engine/mailbox.c
	$(Q)sed 's/RING_LETTERS = 1024/RING_LETTERS = 1/' engine/mailbox.c | \
		$(CC) $(ALL_CFLAGS) -x c -c -o $@ -
# The daemon in one object that shows nothing but its main(): names may be the same outside.
$(BUILD)/tests/sim/daemon.o: $(BUILD)/engine/main.o $(BUILD)/tests/sim/lean.o \
		$(BUILD)/tests/sim/mailbox.o \
		$(filter-out $(OS),$(ARCHIVES))
	@mkdir -p $(@D)
	$(Q)ld -r -o $@ $(filter %.o,$^) --start-group $(filter %.a,$^) --end-group
	$(Q)objcopy --redefine-sym main=stafetted_main --redefine-sym _exit=stafetted_exit $@
	$(Q)objcopy --keep-global-symbol=stafetted_main $@
$(SIM): $(call object,$(wildcard tests/sim/*.c)) $(BUILD)/tests/sim/daemon.o $(SIM_OS) $(SIM_DROP) \
		$(call archive,engine/smtp)
	$(Q)$(CC) -pthread $(if $(SAN),-fsanitize=$(SAN)) -o $@ $^ $(SIM_LIBS)

# Which side of the kernel the tests run on, io_uring or epoll; every daemon and test obeys it.
BACKEND ?=
ifneq ($(BACKEND),)
export STAFETTE_IO := $(BACKEND)
endif
RUN := tests/run --build $(BUILD)

.PHONY: check check-unit check-system check-fuzz check-sim sim sim-mutants model soak powercut \
	asan tsan tsan-system fuzz fuzzers units
check: deps ## all tests; ends with "N passed, N failed"
	$(Q)$(MAKE) --no-print-directory -j2 all units fuzzers $(FAULTS) $(SIM)
	$(Q)$(RUN) unit model fuzz sim system
units: $(UNITS)
check-unit: units ## the unit tests
	$(Q)$(RUN) unit
check-system: all $(FAULTS) ## the scenarios with the real daemon
	$(Q)$(RUN) system
check-fuzz: fuzzers ## every fuzzer for a moment
	$(Q)$(RUN) fuzz
model: ## the hand-offs between threads in every order, and the faults it must find
	$(Q)$(RUN) model
check-sim: $(SIM) ## some hundred seeds of the simulator
	$(Q)$(RUN) sim
sim: $(SIM) ## the simulator, on all cores (SEEDS=1000, from a fresh one or FROM=seed)
	$(Q)$(SIM) --seeds $(or $(SEEDS),1000) $(if $(FROM),--from $(FROM),--fresh)
sim-mutants: $(SIM) ## planted faults, each of which the simulator must find
	$(Q)MUTANT_CC="$(CC)" MUTANT_CFLAGS='$(ALL_CFLAGS)' \
		MUTANT_LEAN="$(SIM_LEAN)" MUTANT_REFUSED="$(SIM_REFUSED)" \
		MUTANT_ARCHIVES="$(filter-out $(OS),$(ARCHIVES))" \
		MUTANT_LINK="$(call object,$(wildcard tests/sim/*.c)) $(SIM_OS) $(SIM_DROP) \
		$(call archive,engine/smtp) $(SIM_LIBS)" tests/sim/mutants --build $(BUILD)
soak: all $(FAULTS) ## kill -9 at random under load, with a ledger, MINUTES=10 (SEED=n)
	$(Q)BUILD=$(BUILD) tests/soak $(or $(MINUTES),10) $(SEED)
powercut: all $(FAULTS) ## power cuts under load on ext4, XFS and btrfs, ROUNDS=20 each
	$(Q)BUILD=$(BUILD) POWERCUT_ROUNDS=$(or $(ROUNDS),20) tests/system/run powercut
fuzz: fuzzers ## every fuzzer for SECONDS=60, on all cores; what they learn: fuzz-corpus/
	$(Q)$(RUN) --seconds $(or $(SECONDS),60) fuzz
fuzzers:
	$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/fuzz CC=$(CLANG) \
		SAN=fuzzer-no-link,address,undefined fuzzers-here
.PHONY: fuzzers-here
fuzzers-here: $(FUZZERS)

asan: ## unit and system tests with the address and undefined-behaviour sanitizers
	$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/asan SAN=address,undefined all units \
		$(FAULTS:$(BUILD)/%=$(BUILD)/asan/%)
	$(Q)tests/run --build $(BUILD)/asan unit system
# What crosses threads; everything else belongs to one.
TSAN_UNITS := $(filter %/engine_mailbox %/engine_log %/os_loop %/os_epoll %/os_file %/os_dns \
	%/engine_site_limits %/engine_edition %/queue_index %/queue_word_lock,$(UNITS))
tsan: ## the unit tests of what crosses threads, with the thread sanitizer
	$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/tsan SAN=thread \
		$(TSAN_UNITS:$(BUILD)/%=$(BUILD)/tsan/%)
	$(Q)tests/run --build $(BUILD)/tsan unit
# Where workers meet: limits of sites, lanes, routes that change, logins, tickets, the end. By
# epoll, as the sanitizer does not see what a ring hands over. A race fails its scenario; the sandbox
# lets the daemon start no symbolizer, so the report has offsets in it, for addr2line.
TSAN_SCENARIOS := auth.many_failures auth.a_flood_of_logins auth.file_changes \
	delivery.connection_limit delivery.workers_share delivery.fewer_connections \
	delivery.no_new_connections delivery.streaming delivery.site_down mime. off_the_loops. \
	operators.list_beside_load operators.term_under_load reload.settings_change_under_load \
	reload.route_changes_in_flight reload.tight_loop tls.tickets tls.reload tls.resumption
tsan-system: ## scenarios in which workers meet, with the thread sanitizer in the daemon
	$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/tsan SAN=thread all
	$(Q)BUILD=$(BUILD)/tsan STAFETTE_IO=epoll tests/system/run $(TSAN_SCENARIOS)

# ── benchmarks ──────────────────────────────────────────────────────────────────────

# Programs of bench/ share its other files; of the engine they use its TLS.
$(addprefix $(BUILD)/bench/,$(BENCHES)): %: %.o $(call object,$(BENCH_SHARED)) $(ARCHIVES)
	$(LINK)
$(BUILD)/bench/micro: $(call object,$(wildcard bench/cases/*.c)) $(BUILD)/bench/micro.o $(ARCHIVES)
	$(LINK) -lbenchmark -lstdc++

.PHONY: bench bench-programs bench-peers demo
bench-programs: $(addprefix $(BUILD)/bench/,$(BENCHES) micro)
bench: deps all bench-programs ## how fast it is, beside what this machine can do
	$(Q)BUILD=$(BUILD) bench/run
bench-peers: deps all bench-programs ## the same beside other mail servers
	$(Q)BUILD=$(BUILD) bench/peers
demo: deps ## a minute's look at it, with nothing set up
	$(Q)$(MAKE) --no-print-directory -j2 all bench-programs
	$(Q)BUILD=$(BUILD) bench/demo

# ── checks of the source ────────────────────────────────────────────────────────────

# The slow analyzer is for the product.
TIDY_LESS = $(if $(filter tests/% bench/%,$*),--checks=-clang-analyzer-*$(comma)-cert-err34-c)
comma    := ,
# An object's dependencies are its header files: what changed is compiled and looked at again.
$(BUILD)/tidy/%.ok: $(BUILD)/%.o .clang-tidy
	@mkdir -p $(@D)
	$(Q)$(CLANG_TIDY) --quiet --warnings-as-errors='*' $(TIDY_LESS) $*.c -- $(ALL_CFLAGS) 2>$@.err || \
		{ grep -v 'warnings generated' $@.err; exit 1; }
	$(Q)rm -f $@.err && touch $@

.PHONY: tidy tidy-files format
tidy: all ## format, clang-tidy, layers, symbols, dead files
	$(Q)$(CLANG_FORMAT) --dry-run -Werror $(C_FILES) $(H_FILES) $(MODELS)
	$(Q)tests/tidy/files
	$(Q)tests/sim/mutants --texts
	$(Q)$(MAKE) --no-print-directory -k -j2 tidy-files
	$(Q)tests/tidy/symbols $(BUILD)
	$(Q)mandoc -T lint -W warning man/*.[158]
	@echo "tidy: nothing to mend"
tidy-files: $(patsubst %.c,$(BUILD)/tidy/%.ok,$(C_FILES)) $(BUILD)/bench/micro.o
format: ## clang-format over all files
	$(Q)$(CLANG_FORMAT) -i $(C_FILES) $(H_FILES) $(MODELS)

# ── the rest ────────────────────────────────────────────────────────────────────────

.PHONY: deps install clean help
deps: ## everything that building and testing needs, from Debian (root or sudo)
	$(Q)tests/deps
install: all ## into $(DESTDIR)$(PREFIX)
	$(Q)install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin sbin share/man/man1 share/man/man5 \
		share/man/man8 share/doc/stafette) $(DESTDIR)$(UNITDIR) \
		$(addprefix $(DESTDIR)$(PREFIX)/lib/,sysusers.d tmpfiles.d)
	$(Q)install -m 755 $(BUILD)/stafetted $(DESTDIR)$(PREFIX)/sbin/
	$(Q)install -m 755 $(BUILD)/stafette $(DESTDIR)$(PREFIX)/bin/
	$(Q)for s in 1 5 8; do install -m 644 man/*.$$s $(DESTDIR)$(PREFIX)/share/man/man$$s/; done
	$(Q)mailq=$(DESTDIR)$(PREFIX)/bin/mailq; \
	if [ 1 = "$(SENDMAIL_COMPAT)" ] || [ ! -e $$mailq ] || [ stafette = "$$(readlink $$mailq)" ]; \
	then ln -sf stafette $$mailq; ln -sf stafette.1 $(DESTDIR)$(PREFIX)/share/man/man1/mailq.1; \
	else echo "$$mailq is another mail server's, and stays (SENDMAIL_COMPAT=1 takes it)"; fi
	$(if $(filter 1,$(SENDMAIL_COMPAT)),$(Q)for name in bin/newaliases sbin/sendmail; do \
		ln -sf ../bin/stafette $(DESTDIR)$(PREFIX)/$$name; \
		ln -sf stafette-sendmail.1 $(DESTDIR)$(PREFIX)/share/man/man1/$${name#*/}.1; done)
	$(Q)install -m 644 dist/stafette.conf LICENSE $(DESTDIR)$(PREFIX)/share/doc/stafette/
	$(Q)sed 's,@PREFIX@,$(PREFIX),g' dist/stafetted.service >$(DESTDIR)$(UNITDIR)/stafetted.service
	$(Q)for d in sysusers tmpfiles; do \
		install -m 644 dist/stafette.$$d $(DESTDIR)$(PREFIX)/lib/$$d.d/stafette.conf; done
clean:
	$(Q)rm -rf $(BUILD)
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile
	@echo "BUILD=folder SAN=address,undefined CC=clang-14 V=1 change how; BACKEND=epoll: tests on it."

.SECONDARY:
-include $(patsubst %.c,$(BUILD)/%.d,$(C_FILES)) $(BUILD)/bench/micro.d
