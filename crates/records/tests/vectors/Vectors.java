import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;

/** write DIR: batches made by Kafka's own library. read FILE...: lists what it finds in batches made elsewhere. */
public class Vectors {
    static byte[] b(String s) { return s.getBytes(StandardCharsets.UTF_8); }

    static void append(MemoryRecordsBuilder m) {
        m.append(1700000000000L, b("k0"), b("v0"), new Header[0]);
        m.append(1700000000007L, null, b("no key"), new Header[0]);
        m.append(1700000000003L, b("tombstone"), null, new Header[0]);
        m.append(1700000000042L, b("k3"), b("drumlin ".repeat(500)),
            new Header[] {new RecordHeader("h1", b("x")), new RecordHeader("h2", (byte[]) null), new RecordHeader("h1", b("again"))});
        m.append(1699999999999L, b(""), b(""), new Header[] {new RecordHeader("é", b(""))});
    }

    static void save(String dir, String name, MemoryRecords r) throws Exception {
        ByteBuffer buffer = r.buffer().duplicate();
        byte[] out = new byte[buffer.remaining()];
        buffer.get(out);
        Files.write(Path.of(dir, name + ".bin"), out);
        System.out.println(name + " " + out.length);
    }

    static MemoryRecordsBuilder builder(Compression c, TimestampType t, long base, long id, short epoch, int seq, boolean tx) {
        return MemoryRecords.builder(ByteBuffer.allocate(1024), RecordBatch.MAGIC_VALUE_V2, c, t, base,
            t == TimestampType.LOG_APPEND_TIME ? 1700000001000L : RecordBatch.NO_TIMESTAMP, id, epoch, seq, tx, 7);
    }

    static void write(String dir) throws Exception {
        Map<String, Compression> codecs = new LinkedHashMap<>();
        codecs.put("none", Compression.none().build());
        codecs.put("gzip", Compression.gzip().build());
        codecs.put("snappy", Compression.snappy().build());
        codecs.put("lz4", Compression.lz4().build());
        codecs.put("zstd", Compression.zstd().build());
        for (Map.Entry<String, Compression> e : codecs.entrySet()) {
            MemoryRecordsBuilder m = builder(e.getValue(), TimestampType.CREATE_TIME, 100, -1, (short) -1, -1, false);
            append(m);
            save(dir, e.getKey(), m.build());
        }
        for (Map.Entry<String, Compression> e : codecs.entrySet()) {
            if (e.getKey().equals("none")) continue;
            MemoryRecordsBuilder m = builder(e.getValue(), TimestampType.CREATE_TIME, 0, -1, (short) -1, -1, false);
            for (int i = 0; i < 40; i++) m.append(1700000000000L + i, b("key " + i), b(("line " + i + " of drumlin; ").repeat(300)), new Header[0]);
            save(dir, "large-" + e.getKey(), m.build());
        }
        MemoryRecordsBuilder m = builder(Compression.lz4().build(), TimestampType.CREATE_TIME, 100, 4711, (short) 3, 2147483645, true);
        append(m);
        save(dir, "transactional-lz4", m.build());
        m = builder(Compression.none().build(), TimestampType.LOG_APPEND_TIME, 100, -1, (short) -1, -1, false);
        append(m);
        save(dir, "append-time", m.build());
        save(dir, "commit", MemoryRecords.withEndTransactionMarker(55, 1700000000000L, 7, 4711, (short) 3, new EndTransactionMarker(ControlRecordType.COMMIT, 12)));
        save(dir, "abort", MemoryRecords.withEndTransactionMarker(55, 1700000000000L, 7, 4711, (short) 3, new EndTransactionMarker(ControlRecordType.ABORT, 12)));
        ByteBuffer empty = ByteBuffer.allocate(61);
        DefaultRecordBatch.writeEmptyHeader(empty, (byte) 2, 4711, (short) 3, 17, 100, 104, 7, TimestampType.CREATE_TIME, 1700000000042L, true, false);
        empty.flip();
        save(dir, "emptied", MemoryRecords.readableRecords(empty));
    }

    static String s(ByteBuffer v) {
        if (v == null) return "null";
        byte[] out = new byte[v.remaining()];
        v.duplicate().get(out);
        return out.length + ":" + Integer.toHexString(Arrays.hashCode(out));
    }

    static void read(String file) throws Exception {
        MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(Files.readAllBytes(Path.of(file))));
        int batches = 0, count = 0;
        StringBuilder text = new StringBuilder();
        for (MutableRecordBatch batch : records.batches()) {
            batch.ensureValid();
            batches++;
            text.append(batch).append('\n');
            text.append(batch.compressionType()).append(' ').append(batch.timestampType()).append(" tx ").append(batch.isTransactional())
                .append(" control ").append(batch.isControlBatch()).append(" horizon ").append(batch.deleteHorizonMs()).append(" count ").append(batch.countOrNull())
                .append(" max ").append(batch.maxTimestamp()).append(" seq ").append(batch.baseSequence()).append("..").append(batch.lastSequence()).append('\n');
            for (org.apache.kafka.common.record.internal.Record r : batch) {
                r.ensureValid();
                count++;
                if (count > 8) continue;
                text.append("  ").append(r.offset()).append(' ').append(r.timestamp()).append(" key ").append(s(r.key())).append(" value ").append(s(r.value()));
                for (Header h : r.headers()) text.append(" [").append(h.key()).append('=').append(h.value() == null ? "null" : h.value().length + ":" + Integer.toHexString(Arrays.hashCode(h.value()))).append(']');
                text.append('\n');
                if (batch.isControlBatch()) text.append("  ").append(ControlRecordType.parse(r.key())).append(' ').append(EndTransactionMarker.deserialize(r).coordinatorEpoch()).append('\n');
            }
        }
        System.out.println(file + ": " + batches + " batches, " + count + " records\n" + text);
    }

    public static void main(String[] args) throws Exception {
        if (args[0].equals("write")) write(args[1]);
        else for (int i = 1; i < args.length; i++) read(args[i]);
    }
}
