# Fuzz targets: over their seeds in make check, with libFuzzer by contrib/fuzz.
if FUZZER
fuzz_main =
else
fuzz_main = %D%/replay.c
endif
EXTRA_DIST += %D%/seeds
check_PROGRAMS += %D%/fuzz_control \
    %D%/fuzz_generate \
    %D%/fuzz_sub \
    %D%/fuzz_out \
    %D%/fuzz_safetensors \
    %D%/fuzz_tokenizer \
    %D%/fuzz_model_config \
    %D%/fuzz_peft_config \
    %D%/fuzz_slot \
    %D%/fuzz_config
tests_fuzz_fuzz_control_SOURCES = %D%/fuzz_control.c %D%/fuzz.h $(fuzz_main)
tests_fuzz_fuzz_control_LDADD = libctsd.la
tests_fuzz_fuzz_control_LDFLAGS = $(AM_LDFLAGS) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_generate_SOURCES = %D%/fuzz_generate.c %D%/fuzz.h $(fuzz_main)
tests_fuzz_fuzz_generate_LDADD = libctsd.la
tests_fuzz_fuzz_generate_LDFLAGS = $(AM_LDFLAGS) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_sub_SOURCES = %D%/fuzz_sub.c %D%/fuzz.h $(fuzz_main)
tests_fuzz_fuzz_sub_LDADD = libctsd.la
tests_fuzz_fuzz_sub_LDFLAGS = $(AM_LDFLAGS) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_out_SOURCES = %D%/fuzz_out.c %D%/fuzz.h $(fuzz_main)
tests_fuzz_fuzz_out_LDADD = libctsclient.la libctsshm.la libctsproto.la libctsbase.la
tests_fuzz_fuzz_out_LDFLAGS = $(AM_LDFLAGS) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_safetensors_SOURCES = %D%/fuzz_safetensors.c %D%/fuzz.h $(fuzz_main)
tests_fuzz_fuzz_safetensors_LDADD = libctsd.la
tests_fuzz_fuzz_safetensors_LDFLAGS = $(AM_LDFLAGS) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_tokenizer_SOURCES = %D%/fuzz_tokenizer.c %D%/fuzz.h $(fuzz_main)
tests_fuzz_fuzz_tokenizer_LDADD = libctsd.la
tests_fuzz_fuzz_tokenizer_LDFLAGS = $(AM_LDFLAGS) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_model_config_SOURCES = %D%/fuzz_model_config.c %D%/fuzz.h $(fuzz_main)
tests_fuzz_fuzz_model_config_LDADD = libctsd.la
tests_fuzz_fuzz_model_config_LDFLAGS = $(AM_LDFLAGS) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_peft_config_SOURCES = %D%/fuzz_peft_config.c %D%/fuzz.h $(fuzz_main)
tests_fuzz_fuzz_peft_config_LDADD = libctsd.la
tests_fuzz_fuzz_peft_config_LDFLAGS = $(AM_LDFLAGS) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_slot_SOURCES = %D%/fuzz_slot.c %D%/fuzz.h $(fuzz_main)
tests_fuzz_fuzz_slot_LDADD = libctsd.la
tests_fuzz_fuzz_slot_LDFLAGS = $(AM_LDFLAGS) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_config_SOURCES = %D%/fuzz_config.c %D%/fuzz.h $(fuzz_main)
tests_fuzz_fuzz_config_LDADD = libctsd.la
tests_fuzz_fuzz_config_LDFLAGS = $(AM_LDFLAGS) $(FUZZER_LDFLAGS)
