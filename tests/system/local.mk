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

check_PROGRAMS += %D%/test_ctsd_control
ctsd_raw = %D%/raw.h %D%/raw.c $(client_ctsd)
ctsd_raw_ldadd = libctsshm.la libctsproto.la libctsbase.la $(CMOCKA_LIBS)
tests_system_test_ctsd_control_SOURCES = %D%/test_ctsd_control.c $(ctsd_raw)
tests_system_test_ctsd_control_LDADD = $(ctsd_raw_ldadd)
check_PROGRAMS += %D%/test_ctsd_ring
tests_system_test_ctsd_ring_SOURCES = %D%/test_ctsd_ring.c $(ctsd_raw)
tests_system_test_ctsd_ring_LDADD = $(ctsd_raw_ldadd)
check_PROGRAMS += %D%/test_ctsd_syscalls
tests_system_test_ctsd_syscalls_SOURCES = %D%/test_ctsd_syscalls.c $(ctsd_raw)
tests_system_test_ctsd_syscalls_LDADD = $(ctsd_raw_ldadd)
check_PROGRAMS += %D%/test_ctsd_life
tests_system_test_ctsd_life_SOURCES = %D%/test_ctsd_life.c $(ctsd_raw)
tests_system_test_ctsd_life_LDADD = $(ctsd_raw_ldadd)
