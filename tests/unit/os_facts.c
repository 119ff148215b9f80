/* The facts of file_facts.h, on the kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/file_facts.h"

static char folder_name[64];

static int setup(void **state)
{
	(void)state;
	snprintf(folder_name, sizeof(folder_name), "/var/tmp/os_facts.XXXXXX");
	if (mkdtemp(folder_name) == NULL)
		return -1;
	facts_folder = os_file_open(OS_CURRENT_FOLDER, folder_name, OS_READ | OS_FOLDER, 0);
	return facts_folder < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	int count = 0;

	(void)state;
	os_folder_list(facts_folder, facts_unlink, &count);
	os_file_close(facts_folder);
	return rmdir(folder_name);
}

#define ROW(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = { FACTS(ROW) };

	return cmocka_run_group_tests_name("os_facts", tests, NULL, NULL);
}
