/*
 * received - see received.h. On the path of every message: no printf here.
 */
#include "engine/inbound/received.h"

#include "os/check.h"

enum {
	NAME_BYTES_MAX = 255, /* of a greeting, longer is cut */
	TLS_BYTES_MAX = 100,
	RECIPIENT_BYTES_MAX = 512,
};

/* ── dates ────────────────────────────────────────────────────────────────────────── */

struct civil {
	int64_t year;
	uint32_t month, day; /* 1 .. 12, 1 .. 31 */
};

/* From days since 1970-01-01, by eras of 400 years that begin on 1 March. */
static struct civil civil_from_days(int64_t days)
{
	int64_t shifted = days + 719468;
	int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
	uint32_t day_of_era = (uint32_t)(shifted - era * 146097);
	uint32_t year_of_era =
		(day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	uint32_t day_of_year =
		day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	uint32_t month_from_march = (5 * day_of_year + 2) / 153;
	uint32_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;

	return (struct civil){
		.year = era * 400 + year_of_era + (month <= 2),
		.month = month,
		.day = day_of_year - (153 * month_from_march + 2) / 5 + 1,
	};
}

static char *put_digits(char *at, uint32_t number, int digits)
{
	for (int i = digits - 1; i >= 0; i--) {
		at[i] = (char)('0' + number % 10);
		number /= 10;
	}
	return at + digits;
}

void received_date(struct os_wall when, char out[static RECEIVED_DATE_BYTES])
{
	static const char days_text[] = "SunMonTueWedThuFriSat";
	static const char months_text[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	/* Four digits of year are all that the format has. */
	int64_t last = INT64_C(253402300799);
	int64_t seconds = when.us < 0 ? 0 : when.us / OS_US_PER_S;
	char *at = out;

	if (seconds > last)
		seconds = last;
	int64_t days = seconds / 86400;
	uint32_t of_day = (uint32_t)(seconds % 86400);
	struct civil civil = civil_from_days(days);

	memcpy(at, days_text + (days + 4) % 7 * 3, 3);
	memcpy(at + 3, ", ", 2);
	at = put_digits(at + 5, civil.day, civil.day < 10 ? 1 : 2);
	*at++ = ' ';
	memcpy(at, months_text + (civil.month - 1) * 3, 3);
	at[3] = ' ';
	at = put_digits(at + 4, (uint32_t)civil.year, 4);
	*at++ = ' ';
	at = put_digits(at, of_day / 3600, 2);
	*at++ = ':';
	at = put_digits(at, of_day / 60 % 60, 2);
	*at++ = ':';
	at = put_digits(at, of_day % 60, 2);
	memcpy(at, " +0000", 7);
}

const char *received_date_cached(struct received_clock *clock, struct os_wall when)
{
	int64_t second = when.us / OS_US_PER_S;

	if (clock->second != second || clock->text[0] == '\0') {
		received_date(when, clock->text);
		clock->second = second;
	}
	return clock->text;
}

/* ── the line ─────────────────────────────────────────────────────────────────────── */

static char *put_text(char *at, const char *text)
{
	size_t len = strlen(text);

	memcpy(at, text, len);
	return at + len;
}

/* What a name may hold; anything else could end a comment or a line. */
static bool name_octet(unsigned char octet)
{
	return (octet >= 'a' && octet <= 'z') || (octet >= 'A' && octet <= 'Z') ||
	       (octet >= '0' && octet <= '9') || (octet != '\0' && strchr("-._:[]", octet) != NULL);
}

static char *put_name(char *at, struct span name, size_t len_max)
{
	size_t len = name.len < len_max ? name.len : len_max;

	for (size_t i = 0; i < len; i++)
		*at++ = name_octet((unsigned char)name.at[i]) ? name.at[i] : '?';
	return at;
}

static char *put_client(char *at, const struct received *received)
{
	const struct os_address *client = received->client;
	bool remote = client->family == AF_INET || client->family == AF_INET6;
	char text[OS_ADDRESS_TEXT_MAX];

	at = put_text(at, "Received: from ");
	if (received->greeting.len != 0)
		at = put_name(at, received->greeting, NAME_BYTES_MAX);
	else
		at = put_text(at, client->family == AF_UNIX ? "local" : "unknown");
	if (!remote)
		return put_text(at, client->family == AF_UNIX ? " (local)" : " (unknown)");
	at = put_text(at, client->family == AF_INET6 ? " ([IPv6:" : " ([");
	at = put_text(at, os_address_text(client, text));
	return put_text(at, "])");
}

/* RFC 3848 and RFC 6531, 4.3. */
static const char *with_word(const struct received *received)
{
	static const char *const words[2][2][2] = {
		/* [utf8][tls][authenticated] */
		{ { "ESMTP", "ESMTPA" }, { "ESMTPS", "ESMTPSA" } },
		{ { "UTF8SMTP", "UTF8SMTPA" }, { "UTF8SMTPS", "UTF8SMTPSA" } },
	};

	if (received->local)
		return "local";
	if (!received->extended && !received->utf8)
		return "SMTP";
	return words[received->utf8][received->tls.len != 0][received->authenticated];
}

/* An address can be shown if it cannot end the line and its bytes are allowed here. */
static bool recipient_shown(const struct received *received)
{
	struct span recipient = received->recipient;

	if (recipient.len == 0 || recipient.len > RECIPIENT_BYTES_MAX)
		return false;
	for (size_t i = 0; i < recipient.len; i++) {
		unsigned char octet = (unsigned char)recipient.at[i];

		if (octet < ' ' || octet == 127 || (octet > 127 && !received->utf8))
			return false;
	}
	return true;
}

static char *put_tls(char *at, struct span tls)
{
	const char *blank = memchr(tls.at, ' ', tls.len);
	size_t version = blank ? (size_t)(blank - tls.at) : tls.len;

	at = put_text(at, "\r\n\t(using ");
	at = put_name(at, span_of(tls.at, version), TLS_BYTES_MAX);
	if (blank) {
		at = put_text(at, " with cipher ");
		at = put_name(at, span_skip(tls, version + 1), TLS_BYTES_MAX);
	}
	*at++ = ')';
	return at;
}

/* As a name, but that it may be an address. */
static char *put_user(char *at, struct span user)
{
	for (size_t i = 0; i < user.len && i < NAME_BYTES_MAX; i++)
		*at++ = user.at[i] == '@' || user.at[i] == '+' ||
					name_octet((unsigned char)user.at[i])
				? user.at[i]
				: '?';
	return at;
}

size_t received_line(const struct received *received, struct received_clock *clock,
		     char out[static RECEIVED_BYTES_MAX])
{
	char *at = put_client(out, received);

	at = put_text(at, "\r\n\tby ");
	at = put_name(at, span_text(received->hostname), NAME_BYTES_MAX);
	at = put_text(at, " (stafette) with ");
	at = put_text(at, with_word(received));
	at = put_text(at, " id ");
	at = put_name(at, span_text(received->id), NAME_BYTES_MAX);
	if (received->tls.len != 0) {
		at = put_tls(at, received->tls);
	}
	if (received->user.len != 0) {
		at = put_text(at, "\r\n\t(authenticated as ");
		at = put_user(at, received->user);
		*at++ = ')';
	}
	if (recipient_shown(received)) {
		at = put_text(at, "\r\n\tfor <");
		memcpy(at, received->recipient.at, received->recipient.len);
		at = put_text(at + received->recipient.len, ">; ");
	} else {
		at = put_text(at, ";\r\n\t");
	}
	at = put_text(at, received_date_cached(clock, received->when));
	at = put_text(at, "\r\n");
	assert(at <= out + RECEIVED_BYTES_MAX);
	return (size_t)(at - out);
}
