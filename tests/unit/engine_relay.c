/* Who may send to whom: everything that is not allowed here is refused. */
/* Rows leave out what is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#include "engine/inbound/relay.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char config_text[] =
	"hostname = \"mx.ours.example\"\n"
	"listen = {\"127.0.0.1:2525\"}\n"
	"trusted = {\"192.0.2.0/24\", \"2001:db8::/32\"}\n"
	"route \"ours.example\" { hosts = {\"127.0.0.1:24\"} accept = true }\n"
	"route \".ours.example\" { hosts = {\"127.0.0.1:24\"} accept = true }\n"
	"route \"Bücher.example\" { hosts = {\"127.0.0.1:24\"} accept = true }\n"
	"route \"gone.example\" { fail = \"5.1.1 No such place\" accept = true }\n"
	"route \"static.example\" { hosts = {\"127.0.0.1:25\"} }\n";

struct relay_case {
	const char *name, *client, *recipient;
	int code;
	const char *enhanced;
	const char *user; /* NULL: nobody logged in */
};

static const struct relay_case cases[] = {
	{ "a trusted client relays anywhere", "192.0.2.7", "<u@far.example>", 250, "2.1.5" },
	{ "so does one by IPv6", "2001:db8::7", "<u@far.example>", 250, "2.1.5" },
	{ "a stranger reaches our domain", "198.51.100.1", "<u@ours.example>", 250, "2.1.5" },
	{ "a stranger reaches below it", "198.51.100.1", "<u@sub.ours.example>", 250, "2.1.5" },
	{ "case does not matter", "198.51.100.1", "<u@OURS.Example>", 250, "2.1.5" },
	{ "who logged in relays anywhere", "198.51.100.1", "<u@far.example>", 250, "2.1.5", "ann" },
	{ "also by address literal", "198.51.100.1", "<u@[203.0.113.1]>", 250, "2.1.5", "ann" },
	{ "and by percent", "198.51.100.1", "<u%x@far.example>", 250, "2.1.5", "ann" },
	{ "but not to a failing route", "198.51.100.1", "<u@gone.example>", 550, "5.1.1", "ann" },
	{ "a stranger does not relay", "198.51.100.1", "<u@far.example>", 550, "5.7.1" },
	{ "not by IPv6 either", "2001:db9::1", "<u@far.example>", 550, "5.7.1" },
	{ "a route alone does not open us", "198.51.100.1", "<u@static.example>", 550, "5.7.1" },
	{ "percent hack through our domain", "198.51.100.1", "<u%far.example@ours.example>", 550,
	  "5.7.1" },
	{ "bang path through our domain", "198.51.100.1", "<far!u@ours.example>", 550, "5.7.1" },
	{ "quoted address through our domain", "198.51.100.1", "<\"u@far.example\"@ours.example>",
	  550, "5.7.1" },
	{ "source route to a far domain", "198.51.100.1", "<@ours.example:u@far.example>", 550,
	  "5.7.1" },
	{ "source route to us is ours", "198.51.100.1", "<@far.example:u@ours.example>", 250,
	  "2.1.5" },
	{ "a domain that only begins as ours", "198.51.100.1", "<u@ours.example.far.example>", 550,
	  "5.7.1" },
	{ "a domain that only ends as ours", "198.51.100.1", "<u@notours.example>", 550, "5.7.1" },
	{ "an address literal", "198.51.100.1", "<u@[203.0.113.1]>", 550, "5.7.1" },
	{ "postmaster without a domain", "198.51.100.1", "<Postmaster>", 250, "2.1.5" },
	{ "a failing route is refused at once", "198.51.100.1", "<u@gone.example>", 550, "5.1.1" },
	{ "to the trusted, too", "192.0.2.7", "<u@gone.example>", 550, "5.1.1" },
	{ "U-labels of a domain of ours", "198.51.100.1", "<u@BÜCHER.example>", 250, "2.1.5" },
	{ "its A-labels", "198.51.100.1", "<u@xn--bcher-kva.example>", 250, "2.1.5" },
	{ "U-labels below a domain of ours", "198.51.100.1", "<u@ü.ours.example>", 250, "2.1.5" },
	{ "U-labels of a far domain", "198.51.100.1", "<u@ü.example>", 550, "5.7.1" },
	{ "a failing route in other letters", "192.0.2.7", "<u@ｇone.example>", 550, "5.1.1" },
	{ "percent hack through U-labels", "198.51.100.1", "<u%far.example@bücher.example>", 550,
	  "5.7.1" },
	{ "U-labels that IDNA forbids", "192.0.2.7", "<u@📧.example>", 501, "5.1.3" },
};

/* Whose login may send as whom. */
static const struct sender_case {
	const char *name, *user, *senders, *sender;
	bool own;
	int code;
} sender_cases[] = {
	{ "nobody logged in: any sender", NULL, NULL, "<a@x.example>", true, 250 },
	{ "no list: any sender", "ann", NULL, "<a@x.example>", false, 250 },
	{ "no list, own only: itself", "ann@x.example", NULL, "<ann@X.example>", true, 250 },
	{ "no list, own only: not another", "ann@x.example", NULL, "<bob@x.example>", true, 553 },
	{ "a name that is no address is nobody's", "ann", NULL, "<ann@x.example>", true, 553 },
	{ "a name is no list", "ann@x.example,@y.example", NULL, "<bob@y.example>", true, 553 },
	{ "the null sender", "ann", "ann@x.example", "<>", true, 250 },
	{ "one of the list", "ann", "a@x.example, b@x.example", "<b@x.example>", false, 250 },
	{ "none of the list", "ann", "a@x.example, b@x.example", "<c@x.example>", false, 553 },
	{ "the local part has its case", "ann", "a@x.example", "<A@x.example>", false, 553 },
	{ "all of a domain", "ann", "@x.example", "<any@x.example>", false, 250 },
	{ "not below it", "ann", "@x.example", "<any@y.x.example>", false, 553 },
	{ "not before it", "ann", "@x.example", "<any@yx.example>", false, 553 },
	{ "a quoted at-sign is no domain", "ann", "@x.example", "<\"a@x.example\"@y.example>",
	  false, 553 },
	{ "U-labels are their A-labels", "ann", "@xn--bcher-kva.example", "<a@bücher.example>",
	  false, 250 },
	{ "an empty list is for nobody", "ann", "", "<a@x.example>", false, 553 },
};

static struct config *config;

static void relay_row(void **state)
{
	const struct relay_case *row = *state;
	struct os_address address;
	struct smtp_address recipient;
	struct span rest;
	struct smtp_answer answer;

	assert_true(os_address_parse(row->client, 0, &address));
	assert_int_equal(smtp_path_parse(span_text(row->recipient), true, &recipient, &rest), 0);
	struct relay_client client = { &address, config_trusts(config, &address), row->user, NULL };

	answer = relay_decide(config, &client, &recipient);
	assert_int_equal(answer.code, row->code);
	assert_string_equal(answer.enhanced, row->enhanced);
}

static void sender_row(void **state)
{
	const struct sender_case *row = *state;
	struct relay_client client = { .user = row->user, .senders = row->senders };
	struct smtp_address sender;
	struct span rest;

	assert_int_equal(smtp_path_parse(span_text(row->sender), true, &sender, &rest), 0);
	config->auth.own_senders = row->own;
	assert_int_equal(relay_sender(config, &client, &sender).code, row->code);
}

int main(void)
{
	struct CMUnitTest rows[array_count(cases) + array_count(sender_cases)];
	char path[] = "/tmp/stafette-relay-XXXXXX", error[2048];
	int fd = mkstemp(path), failed;
	FILE *file = fdopen(fd, "w");

	fputs(config_text, file);
	fclose(file);
	config = config_load(path, error, sizeof(error));
	remove(path);
	if (!config) {
		fprintf(stderr, "%s\n", error);
		return 1;
	}
	for (size_t i = 0; i < array_count(cases); i++)
		rows[i] = (struct CMUnitTest){ .name = cases[i].name,
					       .test_func = relay_row,
					       .initial_state = (void *)&cases[i] };
	for (size_t i = 0; i < array_count(sender_cases); i++)
		rows[array_count(cases) + i] =
			(struct CMUnitTest){ .name = sender_cases[i].name,
					     .test_func = sender_row,
					     .initial_state = (void *)&sender_cases[i] };
	failed = cmocka_run_group_tests_name("relay", rows, NULL, NULL);
	config_destroy(config);
	return failed;
}
