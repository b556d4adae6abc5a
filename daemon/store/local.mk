libctsd_la_SOURCES += %D%/collection.h
