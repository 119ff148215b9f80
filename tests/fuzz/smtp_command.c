/*
 * Command lines, the parameters of MAIL and RCPT, BDAT's sizes.
 */
#include "engine/smtp/command.h"

#include "engine/smtp/params.h"
#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void within(struct span inner, struct span outer)
{
	assert(inner.len == 0 ||
	       (inner.at >= outer.at && inner.at + inner.len <= outer.at + outer.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct smtp_session_options options = {
		.chunking = true,
		.smtputf8 = true,
		.eightbit = true,
		.dsn = true,
		.binarymime = true,
	};
	struct span text = span_of(data, size);
	struct smtp_command command = smtp_command_parse(text);
	struct smtp_mail mail;
	struct smtp_rcpt rcpt;
	uint64_t number;
	bool last;

	assert(command.verb < SMTP_VERB_COUNT);
	within(command.argument, text);
	if (smtp_bdat_parse(command.argument, &number, &last))
		assert(number < UINT64_MAX);
	if (smtp_params_mail(text, &options, &mail) == SMTP_PARAMS_OK) {
		within(mail.envid, text);
		within(mail.auth, text);
		assert(mail.envid.len == 0 || smtp_xtext_valid(mail.envid));
	}
	if (smtp_params_rcpt(text, &options, true, &rcpt) == SMTP_PARAMS_OK) {
		within(rcpt.orcpt, text);
		assert(!(rcpt.notify & 1) || rcpt.notify == 1);
	}
	return 0;
}
