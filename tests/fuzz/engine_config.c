/* Any text for a configuration is either taken, whole, or refused with words. And values: what
 * is taken as a host or a listener is one. */
#include "engine/config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/config/value.h"
#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void load(const uint8_t *data, size_t size)
{
	char path[64], error[4096] = "";
	int fd = memfd_create("config", 0);
	struct config *config;

	assert(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	config = config_load(path, error, sizeof(error));
	assert(config || error[0] != '\0');
	if (config) {
		assert(config->hostname && config->spool);
		assert(config_route(config, span_text("a.example")) != NULL);
		assert(config_route(config, span_of(data, size < 200 ? size : 200)) != NULL);
	}
	config_destroy(config);
	close(fd);
}

static void values(const char *text)
{
	char domain[IDN_DOMAIN_BYTES];
	struct config_network network;
	struct config_host host = { .name = NULL };
	struct os_address address;
	uint64_t number;
	bool truth;

	config_parse_count(text, &number);
	config_parse_duration(text, &number);
	config_parse_bytes(text, &number);
	config_parse_bool(text, &truth);
	if (config_parse_network(text, &network))
		assert(network.prefix <= (network.address.family == AF_INET ? 32 : 128));
	if (config_parse_listener(text, &address))
		assert(address.family != AF_UNSPEC);
	if (config_parse_host(text, 25, &host)) {
		assert(host.name && host.name[0] != '\0');
		free(host.name);
	}
	if (config_parse_domain(text, domain))
		assert(strlen(domain) > 0 && strlen(domain) < sizeof(domain));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	memcpy(text, data, size);
	text[size] = '\0';
	values(text);
	free(text);
	if (!memmem(data, size, "include", 7)) /* other files are not ours to read */
		load(data, size);
	return 0;
}
