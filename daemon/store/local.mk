libctsd_la_SOURCES += %D%/slot_file.h %D%/slot_file.c %D%/collection.h %D%/collection.c %D%/collection_write.c \
    %D%/collection_format.h %D%/collection_format.c
