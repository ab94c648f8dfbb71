/* CRC-64/NVME: what S3 keeps of a whole object, whatever its parts were. Knows no Python. */
#ifndef FSX_CRC64NVME_H
#define FSX_CRC64NVME_H

#include <stddef.h>
#include <stdint.h>

/* Continue `crc`, which begins as 0: update(update(0, a), b) is the CRC of a and b in a row. */
uint64_t fsx_crc64nvme_update(uint64_t crc, const void *data, size_t length);

/* The same by tables: what processors without a carry-less multiply run. */
uint64_t fsx_crc64nvme_update_portable(uint64_t crc, const void *data, size_t length);

/* The CRC of a and b in a row, from the CRC of each and the length of b. */
uint64_t fsx_crc64nvme_combine(uint64_t crc1, uint64_t crc2, uint64_t length2);

/* "pclmulqdq" or "portable": which way fsx_crc64nvme_update goes on this processor. */
const char *fsx_crc64nvme_implementation(void);

#endif
