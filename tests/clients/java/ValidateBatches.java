import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.nio.ByteBuffer;
import java.util.HexFormat;
import java.util.StringJoiner;
import java.util.function.Supplier;

import org.apache.kafka.common.InvalidRecordException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.errors.CorruptRecordException;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.CompressionType;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MutableRecordBatch;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.requests.ProduceRequest;
import org.apache.kafka.common.requests.ProduceResponse;
import org.apache.kafka.common.utils.BufferSupplier;
import org.apache.kafka.common.utils.PrimitiveRef;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.storage.internals.log.AppendOrigin;
import org.apache.kafka.storage.internals.log.LogValidator;
import org.apache.kafka.storage.internals.log.RecordValidationException;

/**
 * Says what Apache Kafka answers to a producer's batches: its own classes, in the order in which its broker calls them.
 * One batch a line: compacted (0 or 1), append time (0 or 1), message.timestamp.before.max.ms and after.max.ms, the
 * time, the bytes in hexadecimal. One answer a line: "ok" with the greatest timestamp that is stored, or "refused" with
 * the error code and the indexes of the records at fault.
 */
public class ValidateBatches {
    private static final TopicPartition PARTITION = new TopicPartition("topic", 0);
    private static final short VERSION = 9;

    private static final LogValidator.MetricsRecorder NO_METRICS = new LogValidator.MetricsRecorder() {
        public void recordInvalidMagic() { }
        public void recordInvalidOffset() { }
        public void recordInvalidSequence() { }
        public void recordInvalidChecksums() { }
        public void recordNoKeyCompactedTopic() { }
    };

    /** A clock that stands still. */
    private record FixedTime(long now) implements Time {
        public long milliseconds() {
            return now;
        }

        public long nanoseconds() {
            return now * 1_000_000;
        }

        public void sleep(long ms) { }

        public void waitObject(Object object, Supplier<Boolean> condition, long deadlineMs) { }
    }

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        BufferedWriter out = new BufferedWriter(new OutputStreamWriter(System.out));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.write(judge(line.split(" ", -1)));
            out.write('\n');
            out.flush();
        }
    }

    private static String judge(String[] fields) {
        try {
            return "ok " + validate(fields);
        } catch (RecordValidationException e) {
            StringJoiner indexes = new StringJoiner(",");
            for (ProduceResponse.RecordError error : e.recordErrors()) {
                indexes.add(Integer.toString(error.batchIndex));
            }
            return "refused " + Errors.forException(e.invalidException()).code() + " " + indexes;
        } catch (Throwable e) {
            return "refused " + Errors.forException(e).code() + " # " + String.valueOf(e).replace('\n', ' ');
        }
    }

    private static long validate(String[] fields) {
        MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(HexFormat.of().parseHex(fields[5])));
        ProduceRequest.validateRecords(VERSION, records);
        // What UnifiedLog looks at before it calls the validator.
        CompressionType codec = CompressionType.NONE;
        int valid = 0;
        for (MutableRecordBatch batch : records.batches()) {
            if (batch.baseOffset() != 0) {
                throw new InvalidRecordException("base offset");
            }
            if (!batch.isValid()) {
                throw new CorruptRecordException("CRC");
            }
            valid += batch.sizeInBytes();
            codec = CompressionType.forId(batch.compressionType().id);
        }
        if (valid <= 0) {
            throw new CorruptRecordException("nothing valid");
        }
        ByteBuffer trimmed = records.buffer().duplicate();
        trimmed.limit(valid);
        Time time = new FixedTime(Long.parseLong(fields[4]));
        TimestampType type = fields[1].equals("1") ? TimestampType.LOG_APPEND_TIME : TimestampType.CREATE_TIME;
        LogValidator validator = new LogValidator(MemoryRecords.readableRecords(trimmed), PARTITION, time, codec,
            Compression.of(codec).build(), fields[0].equals("1"), RecordBatch.CURRENT_MAGIC_VALUE, type,
            Long.parseLong(fields[2]), Long.parseLong(fields[3]), 0, AppendOrigin.CLIENT);
        LogValidator.ValidationResult result = validator.validateMessagesAndAssignOffsets(PrimitiveRef.ofLong(0),
            NO_METRICS, BufferSupplier.NO_CACHING);
        long newest = Long.MIN_VALUE;
        for (RecordBatch batch : result.validatedRecords().batches()) {
            newest = Math.max(newest, batch.maxTimestamp());
        }
        return newest;
    }
}
