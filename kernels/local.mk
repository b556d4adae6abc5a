noinst_LTLIBRARIES += libctskernels.la libctskgeneric.la
libctskernels_la_SOURCES = %D%/ctsk.h %D%/ctsk.c %D%/backend.h %D%/hostmem.c %D%/shape.h %D%/shape.c \
    %D%/ref/ref.h %D%/ref/backend.c %D%/ref/embed.c %D%/ref/gather.c %D%/ref/rmsnorm.c %D%/ref/matmul.c \
    %D%/ref/rope_append.c %D%/ref/attention.c %D%/ref/silu_mul.c %D%/ref/adapt.c \
    %D%/async/backend.c \
    %D%/cpu/backend.c %D%/cpu/level.h %D%/cpu/pool.h %D%/cpu/pool.c
libctskernels_la_LIBADD = libctskgeneric.la libctsbase.la -lm

# One source, compiled once per level with that level's instructions. A multiply
# and an add are fused only where the source says so: -ffp-contract=off.
ctsk_level_cflags = $(AM_CFLAGS) -ffp-contract=off
ctsk_level_files = %D%/cpu/level.h %D%/cpu/ops.inc.h %D%/cpu/dot.inc.h %D%/cpu/rows.inc.h \
    %D%/cpu/matmul.inc.h %D%/cpu/attention.inc.h %D%/cpu/adapt.inc.h
libctskgeneric_la_SOURCES = %D%/cpu/level_generic.c %D%/cpu/vec_generic.h $(ctsk_level_files)
libctskgeneric_la_CFLAGS = $(ctsk_level_cflags)
if X86_64
noinst_LTLIBRARIES += libctskavx2.la libctskavx512f.la
libctskernels_la_SOURCES += %D%/cpu/levels_x86.c
libctskernels_la_LIBADD += libctskavx2.la libctskavx512f.la
libctskavx2_la_SOURCES = %D%/cpu/level_avx2.c %D%/cpu/vec_avx2.h
libctskavx2_la_CFLAGS = $(ctsk_level_cflags) -mavx2 -mfma
libctskavx512f_la_SOURCES = %D%/cpu/level_avx512f.c %D%/cpu/vec_avx512f.h
libctskavx512f_la_CFLAGS = $(ctsk_level_cflags) -mavx512f
else
libctskernels_la_SOURCES += %D%/cpu/levels_other.c
endif
EXTRA_DIST += %D%/cpu/levels_x86.c %D%/cpu/levels_other.c %D%/cpu/level_avx2.c %D%/cpu/vec_avx2.h \
    %D%/cpu/level_avx512f.c %D%/cpu/vec_avx512f.h
