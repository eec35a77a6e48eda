import java.io.BufferedOutputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.protocol.Readable;
import org.apache.kafka.common.protocol.types.RawTaggedField;
import org.apache.kafka.common.requests.AbstractRequest;
import org.apache.kafka.common.requests.RequestHeader;

/**
 * Decodes requests with Apache Kafka's own classes, for tests that hold another decoder against them.
 *
 * Standard input has orders, standard output has the answers, both big-endian. An order is a letter, a
 * number of frames, and the frames, each after its length; all of them are read before the first is answered.
 *
 * T, tokens: for each frame a count, and for each value that was read from the body its offset (int) and
 * kind (byte: 1, 2, 4, 8 for numbers of so many bytes, 'v' for a number of variable length, 'a' for bytes).
 *
 * D, decode: for each frame
 *   how far it came (byte: 0 the header is refused, 1 the version is not known, 2 the body is refused,
 *   3 the request's own class refuses the decoded body, 4 all is taken), why not further (text),
 *   from 1 on: the correlation id (int) and the client id (text),
 *   from 3 on: the number of bytes behind the body (int), and the body as it is written again in the same
 *   version (bytes; length -1 and a text if it cannot be written).
 * A text is its length (int) and UTF-8.
 */
public class Decoder {
    static final Map<Class<?>, Field[]> FIELDS = new HashMap<>();

    public static void main(String[] none) throws IOException {
        DataInputStream in = new DataInputStream(new java.io.BufferedInputStream(new FileInputStream(FileDescriptor.in), 1 << 16));
        DataOutputStream out = new DataOutputStream(new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 16));
        // What a library prints must not come between the answers.
        System.setOut(System.err);
        while (true) {
            int order = in.read();
            if (order < 0) return;
            byte[][] frames = new byte[in.readInt()][];
            for (int i = 0; i < frames.length; i++) {
                frames[i] = new byte[in.readInt()];
                in.readFully(frames[i]);
            }
            for (byte[] frame : frames) {
                if (order == 'T') tokens(frame, out);
                else if (order == 'D') decode(frame, out);
                else throw new EOFException("no such order: " + order);
            }
            out.flush();
        }
    }

    static void text(DataOutputStream out, String text) throws IOException {
        bytes(out, text.getBytes(StandardCharsets.UTF_8));
    }

    static void bytes(DataOutputStream out, byte[] bytes) throws IOException {
        out.writeInt(bytes.length);
        out.write(bytes);
    }

    static String reason(Throwable e) {
        for (Throwable at = e; ; at = at.getCause()) {
            if (at.getCause() == null) return at.getClass().getSimpleName() + ": " + at.getMessage();
        }
    }

    static void refuse(DataOutputStream out, int stage, Throwable why) throws IOException {
        out.writeByte(stage);
        text(out, reason(why));
    }

    static void decode(byte[] frame, DataOutputStream out) throws IOException {
        ByteBuffer buffer = ByteBuffer.wrap(frame);
        RequestHeader header;
        try {
            header = RequestHeader.parse(buffer);
        } catch (RuntimeException e) {
            refuse(out, 0, e);
            return;
        }
        short version = header.apiVersion();
        ApiMessage message = ApiMessageType.fromApiKey(header.apiKey().id).newRequest();
        if (version < message.lowestSupportedVersion() || version > message.highestSupportedVersion()) {
            out.writeByte(1);
            text(out, "");
            header(header, out);
            return;
        }
        ByteBuffer body = buffer.slice();
        try {
            message.read(new ByteBufferAccessor(body), version);
        } catch (RuntimeException e) {
            refuse(out, 2, e);
            header(header, out);
            return;
        }
        try {
            AbstractRequest.parseRequest(header.apiKey(), version, new ByteBufferAccessor(buffer.slice()));
            out.writeByte(4);
            text(out, "");
        } catch (RuntimeException e) {
            refuse(out, 3, e);
        }
        header(header, out);
        out.writeInt(body.remaining());
        try {
            sortTags(message);
            ByteBuffer again = MessageUtil.toByteBufferAccessor(message, version).buffer();
            byte[] bytes = new byte[again.remaining()];
            again.get(bytes);
            bytes(out, bytes);
        } catch (RuntimeException e) {
            out.writeInt(-1);
            text(out, reason(e));
        }
    }

    static void header(RequestHeader header, DataOutputStream out) throws IOException {
        out.writeInt(header.correlationId());
        text(out, header.clientId());
    }

    /**
     * Kafka reads unknown tagged fields in any order and writes ascending ones only. So that what was read can
     * be compared at all: in ascending order, and of several with the same tag the last.
     */
    static void sortTags(Message message) {
        List<RawTaggedField> fields = message.unknownTaggedFields();
        TreeMap<Integer, RawTaggedField> sorted = new TreeMap<>();
        for (RawTaggedField field : fields) sorted.put(field.tag(), field);
        fields.clear();
        fields.addAll(sorted.values());
        for (Field field : FIELDS.computeIfAbsent(message.getClass(), Decoder::fieldsOf)) {
            try {
                Object value = field.get(message);
                if (value instanceof Message inner) sortTags(inner);
                else if (value instanceof Collection<?> elements) {
                    for (Object element : elements) if (element instanceof Message inner) sortTags(inner);
                }
            } catch (IllegalAccessException e) {
                throw new IllegalStateException(e);
            }
        }
    }

    static Field[] fieldsOf(Class<?> type) {
        List<Field> fields = new ArrayList<>();
        for (Field field : type.getDeclaredFields()) {
            boolean holds = Message.class.isAssignableFrom(field.getType()) || Collection.class.isAssignableFrom(field.getType());
            if (Modifier.isStatic(field.getModifiers()) || !holds || field.getName().startsWith("_")) continue;
            field.setAccessible(true);
            fields.add(field);
        }
        return fields.toArray(new Field[0]);
    }

    static void tokens(byte[] frame, DataOutputStream out) throws IOException {
        ByteBuffer buffer = ByteBuffer.wrap(frame);
        RequestHeader header = RequestHeader.parse(buffer);
        Tokens tokens = new Tokens(buffer.slice());
        ApiMessageType.fromApiKey(header.apiKey().id).newRequest().read(tokens, header.apiVersion());
        out.writeInt(tokens.count);
        tokens.list.writeTo(out);
    }

    /** Notes what is read and where. */
    static class Tokens implements Readable {
        final ByteBuffer body;
        final ByteBufferAccessor from;
        final ByteArrayOutputStream list = new ByteArrayOutputStream();
        int count = 0;

        Tokens(ByteBuffer body) {
            this.body = body;
            this.from = new ByteBufferAccessor(body);
        }

        void note(int kind) {
            list.writeBytes(ByteBuffer.allocate(5).putInt(body.position()).put((byte) kind).array());
            count++;
        }

        public byte readByte() { note(1); return from.readByte(); }
        public short readShort() { note(2); return from.readShort(); }
        public int readInt() { note(4); return from.readInt(); }
        public long readLong() { note(8); return from.readLong(); }
        public double readDouble() { note(8); return from.readDouble(); }
        public byte[] readArray(int length) { note('a'); return from.readArray(length); }
        public int readUnsignedVarint() { note('v'); return from.readUnsignedVarint(); }
        public ByteBuffer readByteBuffer(int length) { note('a'); return from.readByteBuffer(length); }
        public int readVarint() { note('v'); return from.readVarint(); }
        public long readVarlong() { note('v'); return from.readVarlong(); }
        public int remaining() { return from.remaining(); }
        public Readable slice() { return from.slice(); }
    }
}
