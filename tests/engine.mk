# tests of engine
check_PROGRAMS += tests/test_sample tests/test_text tests/test_kv tests/test_schedule
tests_test_sample_LDADD = $(tests_ldadd)
tests_test_text_LDADD = $(tests_ldadd)
tests_test_kv_LDADD = $(tests_ldadd)
tests_test_schedule_LDADD = $(tests_ldadd)

golden_sources = tests/golden_rows.h tests/golden_rows.c
check_PROGRAMS += tests/test_forward
tests_test_forward_SOURCES = tests/test_forward.c $(golden_sources)
tests_test_forward_LDADD = $(tests_ldadd)
