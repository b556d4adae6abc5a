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

serve_rig = tests/serve_rig.h tests/serve_rig.c
check_PROGRAMS += tests/test_live
tests_test_live_SOURCES = tests/test_live.c $(serve_rig)
tests_test_live_LDADD = $(tests_ldadd)
check_PROGRAMS += tests/test_adapters tests/test_gen_fill tests/test_listen
tests_test_adapters_SOURCES = tests/test_adapters.c $(serve_rig)
tests_test_adapters_LDADD = $(tests_ldadd)
tests_test_gen_fill_SOURCES = tests/test_gen_fill.c $(serve_rig)
tests_test_gen_fill_LDADD = $(tests_ldadd)
tests_test_listen_SOURCES = tests/test_listen.c
tests_test_listen_LDADD = $(tests_ldadd)
