# tests of common
common_tests_ldadd = libctsfile.la libctsbase.la $(CMOCKA_LIBS) -lm
check_PROGRAMS += tests/test_safetensors tests/test_utf8 tests/test_dtype tests/test_spsc tests/test_wait \
    tests/test_hash tests/test_buf tests/test_err tests/test_json tests/test_log
tests_test_safetensors_LDADD = $(common_tests_ldadd)
tests_test_utf8_LDADD = $(common_tests_ldadd)
tests_test_dtype_LDADD = $(common_tests_ldadd)
tests_test_spsc_LDADD = $(common_tests_ldadd)
tests_test_wait_LDADD = $(common_tests_ldadd)
tests_test_hash_LDADD = $(common_tests_ldadd)
tests_test_buf_LDADD = $(common_tests_ldadd)
tests_test_err_LDADD = $(common_tests_ldadd)
tests_test_json_LDADD = $(common_tests_ldadd)
tests_test_log_LDADD = $(common_tests_ldadd)
