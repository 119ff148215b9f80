/* stafette dkim-key: makes a key, and says what to publish and to configure. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "engine/config/value.h"
#include "engine/dkim/record.h"
#include "tools/command.h"
#include "tools/dkim_zone.h"

static const char help[] =
	"Usage: stafette dkim-key --domain DOMAIN --selector NAME [--type rsa|ed25519] FILE\n"
	"Makes a private key in FILE, which must not be there yet, and says what to publish in\n"
	"the DNS and what to write into the configuration.\n\n"
	"      --domain DOMAIN\n"
	"      --selector NAME  names the key among those of the domain, such as s2026\n"
	"      --type TYPE      rsa (2048 bits; the default) or ed25519\n"
	"  -h, --help\n";

enum {
	OPTION_DOMAIN = 256,
	OPTION_SELECTOR,
	OPTION_TYPE,
	PEM_BYTES_MAX = 16 << 10,
	DKIM_SELECTOR_MAX = 63
};

static const struct option options[] = {
	{ "domain", required_argument, NULL, OPTION_DOMAIN },
	{ "selector", required_argument, NULL, OPTION_SELECTOR },
	{ "type", required_argument, NULL, OPTION_TYPE },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

struct wish {
	const char *domain, *selector, *type, *path; /* as given */
	/* As the DNS has them. */
	char domain_ascii[IDN_DOMAIN_BYTES], selector_ascii[IDN_DOMAIN_BYTES];
};

/* 0, or an exit code after saying why. */
static int save(const char *path, const struct dkim_text *pem)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	bool good;

	if (fd < 0)
		return command_fail(EX_CANTCREAT, "%s: %s", path, strerror(errno));
	good = write(fd, pem->at, pem->len) == (ssize_t)pem->len && fsync(fd) == 0;
	if (close(fd) == 0 && good)
		return 0;
	unlink(path);
	return command_fail(EX_IOERR, "%s can't be written", path);
}

static int make(const struct wish *wish)
{
	bool edwards = strcmp(wish->type, "ed25519") == 0;
	struct dkim_text pem;
	struct dkim_key *key;
	int code;

	if (!edwards && strcmp(wish->type, "rsa") != 0)
		return command_fail(EX_USAGE, "--type %s: give rsa or ed25519", wish->type);
	dkim_text_init(&pem, PEM_BYTES_MAX);
	key = dkim_key_generate(edwards ? DKIM_ED25519 : DKIM_RSA, &pem);
	code = key ? save(wish->path, &pem) : command_fail(EX_OSERR, "no key could be made");
	if (code == 0) {
		puts("Publish:\n");
		dkim_zone_print(wish->domain_ascii, wish->selector_ascii, key);
		printf("\nThen let stafette.conf have:\n\ndkim {\n\tdomain \"%s\" {\n\t\tkey "
		       "\"%s\" "
		       "{ file = \"%s\" }\n\t}\n}\n",
		       wish->domain_ascii, wish->selector_ascii, wish->path);
		command_tell_readers(wish->path);
	}
	explicit_bzero(pem.at, pem.len);
	dkim_text_deinit(&pem);
	dkim_key_destroy(key);
	return code;
}

int command_dkim_key(int argc, char **argv)
{
	struct wish wish = { .type = "rsa" };
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		switch (option) {
		case OPTION_DOMAIN:
			wish.domain = optarg;
			break;
		case OPTION_SELECTOR:
			wish.selector = optarg;
			break;
		case OPTION_TYPE:
			wish.type = optarg;
			break;
		case 'h':
			fputs(help, stdout);
			return EX_OK;
		default:
			return command_bad_option(option, argv, "dkim-key");
		}
	}
	if (optind + 1 != argc || !wish.domain || !wish.selector)
		return command_fail(EX_USAGE, "usage: stafette dkim-key --domain DOMAIN --selector "
					      "NAME [--type rsa|ed25519] FILE");
	wish.path = argv[optind];
	if (!config_parse_domain(wish.domain, wish.domain_ascii))
		return command_fail(EX_USAGE, "--domain %s: not a domain", wish.domain);
	if (!config_parse_domain(wish.selector, wish.selector_ascii) ||
	    strlen(wish.selector_ascii) > DKIM_SELECTOR_MAX)
		return command_fail(EX_USAGE,
				    "--selector %s: give letters, digits and hyphens, such as "
				    "s2026",
				    wish.selector);
	return make(&wish);
}
