#include <stdio.h>

int main(void)
{
    fputs("ctsd: not assembled yet\n", stderr);
    return 1;
}
