/*
 * from - see from.h. The value is walked through once: what is no comment and no white
 * space gathers in `address`, from the beginning of a mailbox or its '<' on.
 */
#include "engine/dkim/from.h"

enum { ADDRESS_MAX = 1024 };

struct walk {
	char address[ADDRESS_MAX];
	size_t len;
	size_t at_sign; /* behind the last '@' outside quotes; 0: none */
	bool quoted, angle, closed;
	uint32_t comments; /* open */
	const char *failed;
	char domain[IDN_DOMAIN_BYTES]; /* "": no mailbox yet */
};

static void begin_again(struct walk *walk)
{
	walk->len = walk->at_sign = 0;
}

static bool is_domain(const char *domain)
{
	return domain[strspn(domain, "abcdefghijklmnopqrstuvwxyz0123456789-_.")] == '\0' &&
	       strchr(domain, '.') && domain[0] != '.' && domain[strlen(domain) - 1] != '.' &&
	       !strstr(domain, "..");
}

/* A mailbox is whole. */
static void end_mailbox(struct walk *walk)
{
	char domain[IDN_DOMAIN_BYTES];

	if (walk->len == 0 && !walk->closed)
		return; /* between two commas */
	if (walk->at_sign == 0 ||
	    !idn_to_ascii(span_of(walk->address + walk->at_sign, walk->len - walk->at_sign),
			  domain) ||
	    !is_domain(domain))
		walk->failed = "From: has no address with a domain";
	else if (walk->domain[0] && strcmp(walk->domain, domain) != 0)
		walk->failed = "From: has addresses of several domains";
	else
		memcpy(walk->domain, domain, sizeof(domain));
	begin_again(walk);
	walk->closed = false;
}

static void gather(struct walk *walk, char octet)
{
	if (walk->closed)
		return;
	if (walk->len == ADDRESS_MAX) {
		walk->failed = "From: is too long";
		return;
	}
	walk->address[walk->len++] = octet;
	if (octet == '@' && !walk->quoted)
		walk->at_sign = walk->len;
}

static void structure(struct walk *walk, char octet)
{
	switch (octet) {
	case '<':
		if (walk->angle || walk->closed)
			walk->failed = "From: is malformed";
		walk->angle = true;
		begin_again(walk);
		break;
	case '>':
		if (!walk->angle)
			walk->failed = "From: is malformed";
		walk->angle = false;
		walk->closed = true;
		break;
	case ':': /* the name of a group, or a route */
		begin_again(walk);
		break;
	case ',':
	case ';':
		if (!walk->angle)
			end_mailbox(walk);
		break;
	default:
		gather(walk, octet);
	}
}

static void octet(struct walk *walk, char octet)
{
	if (walk->comments > 0) {
		walk->comments += octet == '(';
		walk->comments -= octet == ')';
	} else if (walk->quoted) {
		walk->quoted = octet != '"';
		gather(walk, octet);
	} else if (octet == '"') {
		gather(walk, octet);
		walk->quoted = true;
	} else if (octet == '(') {
		walk->comments = 1;
	} else if (!memchr(" \t\r\n", octet, 4)) {
		structure(walk, octet);
	}
}

const char *dkim_from_domain(struct span value, char out[static IDN_DOMAIN_BYTES])
{
	struct walk walk = { 0 };

	for (size_t i = 0; i < value.len && !walk.failed; i++) {
		bool inside = walk.quoted || walk.comments > 0;

		if (inside && value.at[i] == '\\')
			i++; /* what is quoted has no meaning */
		else
			octet(&walk, value.at[i]);
	}
	if (!walk.failed && (walk.quoted || walk.comments > 0 || walk.angle))
		walk.failed = "From: is malformed";
	if (!walk.failed)
		end_mailbox(&walk);
	if (!walk.failed && walk.domain[0] == '\0')
		walk.failed = "From: has no address with a domain";
	if (!walk.failed)
		memcpy(out, walk.domain, sizeof(walk.domain));
	return walk.failed;
}
