# tests that start the real ctsd
check_PROGRAMS += %D%/test_client_ask %D%/test_client_ctsctl
client_ctsd = %D%/ctsd.h %D%/ctsd.c
tests_system_test_client_ask_SOURCES = %D%/test_client_ask.c $(client_ctsd)
tests_system_test_client_ask_LDADD = $(client_ldadd)
tests_system_test_client_ctsctl_SOURCES = %D%/test_client_ctsctl.c $(client_ctsd)
tests_system_test_client_ctsctl_LDADD = libctsfile.la libctsbase.la $(CMOCKA_LIBS)
EXTRA_DIST += %D%/example.sh
dist_check_SCRIPTS += %D%/check-answers.sh
EXTRA_DIST += %D%/answers.py bench/answers.sh
