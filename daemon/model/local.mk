libctsd_la_SOURCES += %D%/model_config.h %D%/tokenizer.h %D%/chat_template.h %D%/peft.h %D%/weights.h %D%/forward.h
libctsd_la_SOURCES += %D%/weights.c %D%/forward.c
libctsd_la_SOURCES += %D%/model_config.c
libctsd_la_SOURCES += %D%/peft.c %D%/peft_config.h %D%/peft_config.c
