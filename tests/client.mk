# libctsclient is libcts with its inner names; the peer is a ctsd that can lie.
client_ldadd = libctsclient.la libctsshm.la libctsproto.la libctsbase.la $(CMOCKA_LIBS)
client_peer = %D%/client_peer.h %D%/client_peer.c $(fault_files)
check_PROGRAMS += %D%/test_names %D%/test_request %D%/test_event %D%/test_open %D%/test_submit %D%/test_next %D%/test_generate \
    %D%/test_eval_file %D%/test_conn
tests_test_conn_LDADD = $(client_ldadd)
tests_test_names_LDADD = $(client_ldadd)
tests_test_request_LDADD = $(client_ldadd)
tests_test_event_LDADD = $(client_ldadd)
tests_test_open_SOURCES = %D%/test_open.c $(client_peer)
tests_test_open_LDADD = $(client_ldadd)
tests_test_open_LDFLAGS = $(AM_LDFLAGS) $(fault_ldflags)
tests_test_submit_SOURCES = %D%/test_submit.c $(client_peer)
tests_test_submit_LDADD = $(client_ldadd)
tests_test_submit_LDFLAGS = $(AM_LDFLAGS) $(fault_ldflags)
tests_test_next_SOURCES = %D%/test_next.c $(client_peer)
tests_test_next_LDADD = $(client_ldadd)
tests_test_next_LDFLAGS = $(AM_LDFLAGS) $(fault_ldflags)
tests_test_generate_SOURCES = %D%/test_generate.c $(client_peer)
tests_test_generate_LDADD = $(client_ldadd)
tests_test_generate_LDFLAGS = $(AM_LDFLAGS) $(fault_ldflags)
tests_test_eval_file_SOURCES = %D%/test_eval_file.c client/eval_file.h client/eval_file.c
tests_test_eval_file_LDADD = libctsfile.la libctsbase.la $(CMOCKA_LIBS)
dist_check_SCRIPTS += %D%/check-symbols.sh %D%/check-ctsctl.sh %D%/check-help.sh %D%/check-man.sh
