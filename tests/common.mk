# tests of common
check_PROGRAMS += tests/test_safetensors
tests_test_safetensors_LDADD = $(tests_ldadd)
