# tests of engine
check_PROGRAMS += tests/test_sample tests/test_text tests/test_kv tests/test_schedule
tests_test_sample_LDADD = $(tests_ldadd)
tests_test_text_LDADD = $(tests_ldadd)
tests_test_kv_LDADD = $(tests_ldadd)
tests_test_schedule_LDADD = $(tests_ldadd)
