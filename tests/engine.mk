# tests of engine
check_PROGRAMS += tests/test_sample tests/test_text tests/test_kv tests/test_schedule
tests_test_sample_LDADD = $(tests_ldadd)
tests_test_text_LDADD = $(tests_ldadd)
tests_test_kv_LDADD = $(tests_ldadd)
tests_test_schedule_LDADD = $(tests_ldadd)

golden_sources = tests/check.h tests/golden_rows.h tests/golden_rows.c
check_PROGRAMS += tests/test_forward
tests_test_forward_SOURCES = tests/test_forward.c $(golden_sources)
tests_test_forward_LDADD = $(tests_ldadd)

rig_sources = tests/engine_rig.h tests/engine_rig.c $(golden_sources)
check_PROGRAMS += tests/test_golden
tests_test_golden_SOURCES = tests/test_golden.c $(rig_sources)
tests_test_golden_LDADD = $(tests_ldadd)

lossless_sources = tests/lossless.h tests/lossless.c
check_PROGRAMS += tests/test_teeth
tests_test_teeth_SOURCES = tests/test_teeth.c $(rig_sources) $(lossless_sources)
tests_test_teeth_LDADD = $(tests_ldadd)

check_PROGRAMS += tests/test_batch_invariance
tests_test_batch_invariance_SOURCES = tests/test_batch_invariance.c $(rig_sources) $(lossless_sources)
tests_test_batch_invariance_LDADD = $(tests_ldadd)

check_PROGRAMS += tests/test_engine
tests_test_engine_SOURCES = tests/test_engine.c $(rig_sources)
tests_test_engine_LDADD = $(tests_ldadd)

check_PROGRAMS += tests/test_mixed
tests_test_mixed_SOURCES = tests/test_mixed.c $(rig_sources) $(lossless_sources)
tests_test_mixed_LDADD = $(tests_ldadd)

check_PROGRAMS += tests/test_weights
tests_test_weights_LDADD = $(tests_ldadd)

check_PROGRAMS += tests/test_engine_open
tests_test_engine_open_SOURCES = tests/test_engine_open.c tests/tiny_collection.h $(rig_sources) $(lossless_sources) \
    $(fault_files)
tests_test_engine_open_LDADD = $(tests_ldadd)
tests_test_engine_open_LDFLAGS = $(AM_LDFLAGS) $(fault_ldflags)

check_PROGRAMS += tests/test_engine_device
tests_test_engine_device_SOURCES = tests/test_engine_device.c $(rig_sources)
tests_test_engine_device_LDADD = $(tests_ldadd)
tests_test_engine_device_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=cts_forward_wait
