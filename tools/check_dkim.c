/* stafette check-dkim: are the keys that sign also the keys in the DNS? */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "engine/config/config.h"
#include "engine/config/value.h"
#include "engine/dkim/record.h"
#include "tools/command.h"
#include "tools/dkim_zone.h"

static const char help[] =
	"Usage: stafette check-dkim [OPTIONS] DOMAIN\n"
	"Compares each key that signs for the domain with the record in the DNS, and says what\n"
	"to publish where they differ. Ends with 0 only if receivers will accept every "
	"signature.\n\n"
	"      --selector NAME  only this key\n"
	"  -c, --config FILE    where the keys and the name servers are configured\n"
	"                       (" COMMAND_CONFIG ")\n"
	"  -h, --help\n";

enum { OPTION_SELECTOR = 256, ERROR_BYTES = 8192, TURN_MS = 100 };

static const struct option options[] = {
	{ "selector", required_argument, NULL, OPTION_SELECTOR },
	{ "config", required_argument, NULL, 'c' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

/* ── the DNS ──────────────────────────────────────────────────────────────────────── */

static void on_answer(struct os_op *op)
{
	(void)op;
}

static void ask(struct os_loop *loop, struct os_dns_query *query)
{
	query->type = OS_DNS_TXT;
	query->op.done = on_answer;
	os_dns_ask(loop, query);
	while (query->op.busy)
		os_loop_turn(loop, os_mono_add_ms(os_mono_now(), TURN_MS));
}

/* NULL: one record is there and fits. */
static const char *judge(const struct os_dns_query *query, const struct dkim_key *key)
{
	if (query->status == OS_DNS_FAILED)
		return "the DNS gives no answer";
	if (query->status != OS_DNS_OK)
		return "there is no record";
	if (query->record_count > 1)
		return "there are several records, and receivers may take either";
	return dkim_record_check(query->records[0].data, key);
}

/* ── keys ─────────────────────────────────────────────────────────────────────────── */

/* An exit code, after saying all about this key. */
static int check_key(struct os_loop *loop, const char *domain, const struct config_dkim_key *from)
{
	struct os_dns_query query = { 0 };
	char error[DKIM_ERROR_BYTES];
	struct dkim_key *key = dkim_key_load(from->file, error);
	const char *wrong;
	int length, code = EX_OK;

	if (!key)
		return command_fail(EX_CONFIG, "%s", error);
	length = snprintf(query.name, sizeof(query.name), "%s._domainkey.%s", from->selector,
			  domain);
	if (length >= (int)sizeof(query.name)) {
		dkim_key_destroy(key);
		return command_fail(EX_CONFIG, "%s._domainkey.%s is too long for the DNS",
				    from->selector, domain);
	}
	ask(loop, &query);
	wrong = judge(&query, key);
	if (wrong) {
		printf("%s: %s. Publish:\n\n", query.name, wrong);
		dkim_zone_print(domain, from->selector, key);
		putchar('\n');
		code = query.status == OS_DNS_FAILED ? EX_TEMPFAIL : EX_DATAERR;
	} else {
		printf("%s: good (%s)%s\n", query.name, dkim_key_algorithm(key),
		       dkim_record_is_test(query.records[0].data)
			       ? ", but marked as a test (t=y): receivers may ignore it"
			       : "");
	}
	os_dns_release(&query);
	dkim_key_destroy(key);
	return code;
}

static const struct config_dkim_domain *find_domain(const struct config *config, const char *name)
{
	char wanted[IDN_DOMAIN_BYTES];

	if (!config_parse_domain(name, wanted))
		return NULL;
	for (uint32_t i = 0; i < config->dkim.domain_count; i++)
		if (strcmp(config->dkim.domains[i].name, wanted) == 0)
			return &config->dkim.domains[i];
	return NULL;
}

static int check_keys(struct os_loop *loop, const struct config_dkim_domain *domain,
		      const char *selector)
{
	uint32_t found = 0;
	int code = EX_OK;

	for (uint32_t i = 0; i < domain->key_count; i++) {
		int result;

		if (selector && strcmp(selector, domain->keys[i].selector) != 0)
			continue;
		found++;
		result = check_key(loop, domain->name, &domain->keys[i]);
		if (code == EX_OK)
			code = result;
	}
	return found > 0 ? code
			 : command_fail(EX_USAGE, "%s has no key \"%s\"", domain->name, selector);
}

/* ── the command ──────────────────────────────────────────────────────────────────── */

static int with_loop(const struct config *config, const struct config_dkim_domain *domain,
		     const char *selector)
{
	struct os_loop *loop = NULL;
	char why[256];
	int code;

	if (os_backend_choose(why, sizeof(why)) < 0 || os_loop_create(NULL, &loop) < 0)
		return command_fail(EX_OSERR, "%s", why);
	if (os_dns_start(&config->dns) < 0) {
		os_loop_destroy(loop);
		return command_fail(EX_OSERR, "the resolver does not start");
	}
	code = check_keys(loop, domain, selector);
	os_dns_stop();
	os_loop_destroy(loop);
	return code;
}

static int run(const char *path, const char *name, const char *selector)
{
	char error[ERROR_BYTES] = "";
	struct config *config = config_load(path, error, sizeof(error));
	const struct config_dkim_domain *domain;
	int code;

	if (!config)
		return command_fail(EX_CONFIG, "%s", error);
	domain = find_domain(config, name);
	code = domain ? with_loop(config, domain, selector)
		      : command_fail(EX_CONFIG,
				     "%s has no keys in %s: `stafette dkim-key` makes one", name,
				     path ? path : "the built-in configuration");
	config_destroy(config);
	return code;
}

int command_check_dkim(int argc, char **argv)
{
	const char *path = NULL, *selector = NULL;
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":c:h", options, NULL)) != -1) {
		switch (option) {
		case 'c':
			path = optarg;
			break;
		case OPTION_SELECTOR:
			selector = optarg;
			break;
		case 'h':
			fputs(help, stdout);
			return EX_OK;
		default:
			return command_bad_option(option, argv, "check-dkim");
		}
	}
	if (optind + 1 != argc)
		return command_fail(
			EX_USAGE, "usage: stafette check-dkim [--selector NAME] [-c FILE] DOMAIN");
	return run(command_config_path(path), argv[optind], selector);
}
