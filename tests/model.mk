# tests of model
check_PROGRAMS += tests/test_model_config
tests_test_model_config_LDADD = $(tests_ldadd)
check_PROGRAMS += tests/test_peft
tests_test_peft_LDADD = $(tests_ldadd)
check_PROGRAMS += tests/test_tokenizer
tests_test_tokenizer_LDADD = $(tests_ldadd)
check_PROGRAMS += tests/test_chat_template
tests_test_chat_template_LDADD = $(tests_ldadd)
