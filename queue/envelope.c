/*
 * The builder gathers values in one growing buffer and remembers where they are; sealing
 * sorts the recipients and lays everything out: sender, options, recipients, origins.
 */
#include "queue/envelope.h"

#include <stdlib.h>

#include "os/check.h"

#define ENVELOPE_RECIPIENTS_MAX UINT16_MAX
#define ENVELOPE_TYPES		9

struct buffer {
	char *at;
	size_t len, size;
};

struct draft_value {
	uint32_t at, len; /* in `values` */
	bool set;
};

struct draft_recipient {
	uint32_t at; /* in `values`: the address, then ORCPT */
	uint16_t address_bytes, domain_at, orcpt_bytes;
	uint8_t notify;
};

struct envelope_builder {
	struct buffer values, sealed;
	struct draft_value single[ENVELOPE_TYPES]; /* by type */
	struct draft_recipient *recipients;
	uint32_t recipient_count, recipient_size;
	struct format_origin *origins;
	uint32_t origin_count, origin_size;
	bool failed; /* no memory, or too large */
};

/* ── building ─────────────────────────────────────────────────────────────────────── */

struct envelope_builder *envelope_builder_create(void)
{
	return calloc(1, sizeof(struct envelope_builder));
}

void envelope_builder_destroy(struct envelope_builder *builder)
{
	if (!builder)
		return;
	free(builder->values.at);
	free(builder->sealed.at);
	free(builder->recipients);
	free(builder->origins);
	free(builder);
}

void envelope_builder_reset(struct envelope_builder *builder)
{
	builder->values.len = builder->sealed.len = 0;
	builder->recipient_count = builder->origin_count = 0;
	builder->failed = false;
	memset(builder->single, 0, sizeof(builder->single));
}

/* Room for `count` further bytes, at the end; NULL: too large, or no memory. */
static char *buffer_extend(struct buffer *buffer, size_t count)
{
	size_t need = buffer->len + count;

	if (need > FORMAT_ENVELOPE_BYTES_MAX)
		return NULL;
	if (need > buffer->size || !buffer->at) {
		size_t size = buffer->size ? buffer->size : 512;

		while (size < need)
			size *= 2;
		char *at = realloc(buffer->at, size);

		if (!at)
			return NULL;
		buffer->at = at;
		buffer->size = size;
	}
	buffer->len = need;
	return buffer->at + need - count;
}

static bool buffer_add(struct buffer *buffer, const void *bytes, size_t count)
{
	char *at = buffer_extend(buffer, count);

	if (!at)
		return false;
	if (count > 0)
		memcpy(at, bytes, count);
	return true;
}

/* `array` with room for one element more; NULL: no memory, and the old one is still there. */
static void *array_extend(void *array, uint32_t count, uint32_t *size, size_t element_bytes)
{
	if (count < *size)
		return array;
	uint32_t wanted = *size ? *size * 2 : 16;
	void *larger = realloc(array, wanted * element_bytes);

	if (larger)
		*size = wanted;
	return larger;
}

void envelope_set(struct envelope_builder *builder, enum format_entry_type type, struct span value)
{
	assert(type > 0 && type < ENVELOPE_TYPES);
	assert(type != FORMAT_RECIPIENT && type != FORMAT_ORIGIN);

	uint32_t at = (uint32_t)builder->values.len;

	if (value.len > UINT16_MAX || !buffer_add(&builder->values, value.at, value.len)) {
		builder->failed = true;
		return;
	}
	builder->single[type] = (struct draft_value){ at, (uint32_t)value.len, true };
}

void envelope_set_sender(struct envelope_builder *builder, struct span address)
{
	envelope_set(builder, FORMAT_SENDER, address);
}

/* Where the domain begins; the end if there is none. */
static size_t address_domain_at(struct span address)
{
	const char *sign = address.len ? memrchr(address.at, '@', address.len) : NULL;

	return sign ? (size_t)(sign + 1 - address.at) : address.len;
}

void envelope_add_recipient(struct envelope_builder *builder,
			    const struct envelope_recipient *recipient)
{
	size_t bytes =
		sizeof(struct format_recipient) + recipient->address.len + recipient->orcpt.len;
	uint32_t at = (uint32_t)builder->values.len;
	struct draft_recipient *list = array_extend(builder->recipients, builder->recipient_count,
						    &builder->recipient_size, sizeof(*list));

	if (list)
		builder->recipients = list;
	if (!list || bytes > UINT16_MAX || builder->recipient_count == ENVELOPE_RECIPIENTS_MAX ||
	    !buffer_add(&builder->values, recipient->address.at, recipient->address.len) ||
	    !buffer_add(&builder->values, recipient->orcpt.at, recipient->orcpt.len)) {
		builder->failed = true;
		return;
	}
	list[builder->recipient_count++] = (struct draft_recipient){
		.at = at,
		.address_bytes = (uint16_t)recipient->address.len,
		.domain_at = (uint16_t)address_domain_at(recipient->address),
		.orcpt_bytes = (uint16_t)recipient->orcpt.len,
		.notify = recipient->notify,
	};
}

void envelope_add_origin(struct envelope_builder *builder, const struct format_origin *origin)
{
	struct format_origin *list = array_extend(builder->origins, builder->origin_count,
						  &builder->origin_size, sizeof(*list));

	if (!list) {
		builder->failed = true;
		return;
	}
	builder->origins = list;
	list[builder->origin_count++] = *origin;
}

uint32_t envelope_recipient_count(const struct envelope_builder *builder)
{
	return builder->recipient_count;
}

static int domain_compare(struct span a, struct span b)
{
	size_t len = a.len < b.len ? a.len : b.len;
	int order = len ? memcmp(a.at, b.at, len) : 0;

	return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int draft_compare(const void *a, const void *b, void *values)
{
	const struct draft_recipient *left = a, *right = b;
	const char *base = values;
	int order = domain_compare(
		span_of(base + left->at + left->domain_at, left->address_bytes - left->domain_at),
		span_of(base + right->at + right->domain_at,
			right->address_bytes - right->domain_at));

	/* Where they were added decides among equals: qsort alone is not stable. */
	return order ? order : (left->at > right->at) - (left->at < right->at);
}

/* The head of an entry; its value is added by the caller. */
static bool seal_entry(struct buffer *out, enum format_entry_type type, size_t bytes)
{
	struct format_entry entry = { .type = (uint8_t)type, .bytes = (uint16_t)bytes };

	assert(bytes <= UINT16_MAX);
	return buffer_add(out, &entry, sizeof(entry));
}

static bool seal_recipient(struct envelope_builder *builder, const struct draft_recipient *draft)
{
	struct format_recipient head = {
		.notify = draft->notify,
		.address_bytes = draft->address_bytes,
		.domain_at = draft->domain_at,
		.orcpt_bytes = draft->orcpt_bytes,
	};
	size_t text = (size_t)draft->address_bytes + draft->orcpt_bytes;

	return seal_entry(&builder->sealed, FORMAT_RECIPIENT, sizeof(head) + text) &&
	       buffer_add(&builder->sealed, &head, sizeof(head)) &&
	       buffer_add(&builder->sealed, builder->values.at + draft->at, text);
}

bool envelope_seal(struct envelope_builder *builder, struct span *bytes_out)
{
	struct buffer *out = &builder->sealed;
	bool good = !builder->failed;

	assert(builder->failed || builder->single[FORMAT_SENDER].set);
	out->len = 0;
	if (builder->recipient_count > 1)
		qsort_r(builder->recipients, builder->recipient_count, sizeof(*builder->recipients),
			draft_compare, builder->values.at);
	for (int type = 1; good && type < ENVELOPE_TYPES; type++) {
		const struct draft_value *value = &builder->single[type];

		if (value->set)
			good = seal_entry(out, type, value->len) &&
			       buffer_add(out, builder->values.at + value->at, value->len);
	}
	for (uint32_t i = 0; good && i < builder->recipient_count; i++)
		good = seal_recipient(builder, &builder->recipients[i]);
	for (uint32_t i = 0; good && i < builder->origin_count; i++)
		good = seal_entry(out, FORMAT_ORIGIN, sizeof(struct format_origin)) &&
		       buffer_add(out, &builder->origins[i], sizeof(struct format_origin));
	if (!good)
		return false;
	*bytes_out = span_of(out->at, out->len);
	assert(envelope_check(*bytes_out));
	return true;
}

/* ── reading ──────────────────────────────────────────────────────────────────────── */

/* Takes the next entry off `rest`; false: at its end, or (rest->len > 0) a bad length. */
static bool entry_next(struct span *rest, uint8_t *type_out, struct span *value_out)
{
	struct format_entry entry;

	if (rest->len < sizeof(entry))
		return false;
	memcpy(&entry, rest->at, sizeof(entry));
	if (entry.bytes > rest->len - sizeof(entry))
		return false;
	*type_out = entry.type;
	*value_out = span_of(rest->at + sizeof(entry), entry.bytes);
	*rest = span_skip(*rest, sizeof(entry) + entry.bytes);
	return true;
}

/* False: the lengths disagree. */
static bool recipient_parse(struct span value, struct envelope_recipient *out)
{
	struct format_recipient head;

	if (value.len < sizeof(head))
		return false;
	memcpy(&head, value.at, sizeof(head));
	if (sizeof(head) + head.address_bytes + head.orcpt_bytes != value.len ||
	    head.domain_at > head.address_bytes)
		return false;
	out->address = span_of(value.at + sizeof(head), head.address_bytes);
	out->domain = span_skip(out->address, head.domain_at);
	out->orcpt = span_of(value.at + sizeof(head) + head.address_bytes, head.orcpt_bytes);
	out->notify = head.notify;
	return true;
}

/* Whole lines, and none that would need its dot doubled. */
static bool prefix_sound(struct span prefix)
{
	return prefix.len >= 2 && memcmp(prefix.at + prefix.len - 2, "\r\n", 2) == 0 &&
	       prefix.at[0] != '.' && !memmem(prefix.at, prefix.len, "\n.", 2);
}

bool envelope_check(struct span envelope)
{
	struct envelope_recipient recipient, last = { 0 };
	uint32_t senders = 0, recipients = 0;
	struct span value;
	uint8_t type;

	while (entry_next(&envelope, &type, &value)) {
		if (type == FORMAT_SENDER)
			senders++;
		else if (type == FORMAT_ORIGIN && value.len != sizeof(struct format_origin))
			return false;
		else if (type == FORMAT_RET && value.len != 1)
			return false;
		else if (type == FORMAT_PREFIX && !prefix_sound(value))
			return false;
		if (type != FORMAT_RECIPIENT)
			continue;
		if (!recipient_parse(value, &recipient) ||
		    recipient.address.len - recipient.domain.len !=
			    address_domain_at(recipient.address) ||
		    recipients == ENVELOPE_RECIPIENTS_MAX ||
		    (recipients > 0 && domain_compare(last.domain, recipient.domain) > 0))
			return false;
		last = recipient;
		recipients++;
	}
	return envelope.len == 0 && senders == 1;
}

struct span envelope_get(struct span envelope, enum format_entry_type wanted)
{
	struct span value;
	uint8_t type;

	while (entry_next(&envelope, &type, &value))
		if (type == wanted)
			return value;
	return (struct span){ NULL, 0 };
}

struct span envelope_sender(struct span envelope)
{
	return envelope_get(envelope, FORMAT_SENDER);
}

uint32_t envelope_count(struct span envelope)
{
	uint32_t count = 0;
	struct span value;
	uint8_t type;

	while (entry_next(&envelope, &type, &value))
		count += type == FORMAT_RECIPIENT;
	return count;
}

bool envelope_next(struct envelope_cursor *cursor, struct envelope_recipient *out)
{
	struct span value;
	uint8_t type;

	while (entry_next(&cursor->rest, &type, &value))
		if (type == FORMAT_RECIPIENT)
			return recipient_parse(value, out);
	return false;
}

bool envelope_next_origin(struct envelope_cursor *cursor, struct format_origin *out)
{
	struct span value;
	uint8_t type;

	while (entry_next(&cursor->rest, &type, &value)) {
		if (type != FORMAT_ORIGIN || value.len != sizeof(*out))
			continue;
		memcpy(out, value.at, sizeof(*out));
		return true;
	}
	return false;
}

bool envelope_next_job(struct envelope_job_cursor *cursor)
{
	struct envelope_cursor here = { cursor->rest };
	struct envelope_recipient recipient;
	uint32_t found = 0;

	while (found < FORMAT_JOB_RECIPIENTS_MAX && envelope_next(&here, &recipient)) {
		if (found == 0)
			cursor->domain = recipient.domain;
		else if (!span_equal(cursor->domain, recipient.domain))
			break;
		found++;
		cursor->rest = here.rest;
	}
	if (found == 0)
		return false;
	cursor->first += cursor->count;
	cursor->count = found;
	return true;
}
