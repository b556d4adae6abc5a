libctsd_la_SOURCES += %D%/model_config.h %D%/tokenizer.h %D%/chat_template.h %D%/peft.h %D%/weights.h %D%/forward.h
libctsd_la_SOURCES += %D%/weights.c %D%/forward.c
libctsd_la_SOURCES += %D%/model_config.c
libctsd_la_SOURCES += %D%/peft.c %D%/peft_config.h %D%/peft_config.c
libctsd_la_SOURCES += %D%/tokenizer.c %D%/tokenizer_file.c %D%/tokenizer_impl.h %D%/bpe.h %D%/bpe.c %D%/pretok.h %D%/pretok.c \
    %D%/unicode_table.h %D%/unicode_table.c
libctsd_la_SOURCES += %D%/chat_template.c
