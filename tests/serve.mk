# tests of serve, shm and proto
check_PROGRAMS += tests/test_ring tests/test_record tests/test_segment tests/test_msgpack tests/test_ctl_msg
tests_test_ring_SOURCES = tests/test_ring.c
tests_test_ring_LDADD = libctsshm.la libctsbase.la $(CMOCKA_LIBS)
tests_test_record_SOURCES = tests/test_record.c
tests_test_record_LDADD = libctsshm.la libctsbase.la $(CMOCKA_LIBS)
tests_test_segment_SOURCES = tests/test_segment.c
tests_test_segment_LDADD = libctsshm.la libctsbase.la $(CMOCKA_LIBS)
tests_test_msgpack_SOURCES = tests/test_msgpack.c
tests_test_msgpack_LDADD = libctsproto.la libctsbase.la $(MSGPACK_LIBS) $(CMOCKA_LIBS)
tests_test_ctl_msg_SOURCES = tests/test_ctl_msg.c
tests_test_ctl_msg_LDADD = libctsproto.la libctsbase.la $(CMOCKA_LIBS) -lm

check_PROGRAMS += tests/test_config tests/test_sdnotify
tests_test_config_SOURCES = tests/test_config.c
tests_test_config_LDADD = $(tests_ldadd)
tests_test_sdnotify_SOURCES = tests/test_sdnotify.c
tests_test_sdnotify_LDADD = $(tests_ldadd)
check_PROGRAMS += tests/test_ctl_table
tests_test_ctl_table_SOURCES = tests/test_ctl_table.c
tests_test_ctl_table_LDADD = $(tests_ldadd)
