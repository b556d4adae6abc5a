EXTRA_DIST += %D%/cts.h
