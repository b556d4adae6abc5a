# tests of model
check_PROGRAMS += tests/test_model_config
tests_test_model_config_LDADD = $(tests_ldadd)
check_PROGRAMS += tests/test_peft
tests_test_peft_LDADD = $(tests_ldadd)
check_PROGRAMS += tests/test_tokenizer
tests_test_tokenizer_LDADD = $(tests_ldadd)
check_PROGRAMS += tests/test_chat_template
tests_test_chat_template_LDADD = $(tests_ldadd)
check_PROGRAMS += tests/test_model_files
tests_test_model_files_SOURCES = %D%/test_model_files.c $(fault_files)
tests_test_model_files_LDADD = $(tests_ldadd)
tests_test_model_files_LDFLAGS = $(AM_LDFLAGS) $(fault_ldflags)
check_PROGRAMS += tests/test_bpe
tests_test_bpe_LDADD = $(tests_ldadd)
