#include "engine/inbound/relay.h"

#include "engine/auth/users.h"
#include "engine/idn.h"

static const struct smtp_answer accepted = { 250, "2.1.5", "Recipient ok" };

/* The last domain in a local part that routes by itself: user%other@ours, user!x, "a@other"@ours.
 */
static bool routes_by_local_part(const struct smtp_address *recipient)
{
	size_t len = recipient->domain_at > 0 ? recipient->domain_at - 1u : recipient->len;

	return memchr(recipient->text, '%', len) || memchr(recipient->text, '!', len) ||
	       memchr(recipient->text, '@', len);
}

/* fail = "5.1.1 gone": the code, then the text. */
static struct smtp_answer refuse_by_route(const struct config_route *route)
{
	static _Thread_local char enhanced[12];
	const char *space = strchr(route->text, ' ');

	smtp_enhanced_text(smtp_enhanced_parse(span_text(route->text)), enhanced);
	return (struct smtp_answer){ 550, enhanced, space ? space + 1 : "Refused" };
}

struct smtp_answer relay_decide(const struct config *config, const struct relay_client *client,
				const struct smtp_address *recipient)
{
	bool relays = client->trusted || client->user;
	const struct config_route *route;
	struct smtp_address ascii;
	struct span domain;

	if (recipient->utf8) {
		if (!idn_address(recipient, &ascii))
			return (struct smtp_answer){ 501, "5.1.3", "Not a domain" };
		recipient = &ascii;
	}
	domain = smtp_address_domain(recipient);
	/* <postmaster> without a domain is ours by definition: RFC 5321, 4.5.1. */
	if (domain.len == 0)
		return accepted;
	route = config_route(config, domain);
	if (route->action == CONFIG_ROUTE_FAIL && (relays || route->accept))
		return refuse_by_route(route);
	if (relays)
		return accepted;
	if (!route->accept)
		return (struct smtp_answer){ 550, "5.7.1", "Relaying denied" };
	if (routes_by_local_part(recipient))
		return (struct smtp_answer){ 550, "5.7.1", "Source-routed address refused" };
	return accepted;
}

struct smtp_answer relay_sender(const struct config *config, const struct relay_client *client,
				const struct smtp_address *sender)
{
	static const struct smtp_answer sender_ok = { 250, "2.1.0", "Ok" };
	const char *senders = client->senders;
	struct smtp_address ascii;

	/* A name that would be read as a list can't be a sender's address. */
	if (!senders && config->auth.own_senders && client->user)
		senders = strpbrk(client->user, ", ") ? "" : client->user;
	if (!client->user || !senders)
		return sender_ok;
	if (sender->utf8 && idn_address(sender, &ascii))
		sender = &ascii;
	if (users_sender_allowed(senders, smtp_address_span(sender)))
		return sender_ok;
	return (struct smtp_answer){ 553, "5.7.1", "Not your address to send from" };
}
