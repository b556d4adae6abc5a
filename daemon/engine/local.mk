libctsd_la_SOURCES += \
    %D%/engine.h %D%/state.h %D%/engine.c %D%/open.c %D%/turn.c %D%/step.c %D%/publish.c \
    %D%/request.h %D%/request.c %D%/schedule.h %D%/schedule.c %D%/kv.h %D%/kv.c \
    %D%/sample.h %D%/sample.c %D%/text.h %D%/text.c %D%/adapter_tables.h %D%/adapter_tables.c
