# cts-compress and its library code
libctsd_la_SOURCES += %D%/linalg.h %D%/linalg.c %D%/tasks.h %D%/tasks.c %D%/delta.h %D%/delta.c %D%/joint.h %D%/joint.c \
    %D%/code.h %D%/code.c %D%/adapter_set.h %D%/adapter_set.c %D%/assign.h %D%/assign.c %D%/cluster.h %D%/cluster.c \
    %D%/compress.h %D%/compress.c %D%/report.h %D%/report.c
bin_PROGRAMS += cts-compress
cts_compress_SOURCES = %D%/compress_main.c
cts_compress_LDADD = libctsd.la
