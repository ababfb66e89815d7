-- Tells what has changed since a revision.
-- KEYS: as in write.lua
-- ARGV: the revision, its tag, 1 if the tag is not to be looked at, how many records at most, the
--   revision of the caller's own last edit ('0': none), its tag
-- Returns revision, tag and pepper as they are now; 1 if the caller's revision is of another
-- history, so that everything is to be read; the revision up to which the records that
-- follow go; and the records.
local meta = redis.call('HMGET', KEYS[3], 'rev', 'tag', 'pepper')
local rev, tag, pepper = meta[1] or '0', meta[2] or '', meta[3] or ''
if ARGV[3] ~= '1' then
  if ARGV[5] ~= '0' and redis.call('HGET', KEYS[4], ARGV[5]) ~= ARGV[6] then
    return {rev, tag, pepper, 1, '0'}
  end
  if rev == ARGV[1] and tag == ARGV[2] then
    return {rev, tag, pepper, 0, rev}
  end
  if redis.call('HGET', KEYS[4], ARGV[1]) ~= ARGV[2] then
    return {rev, tag, pepper, 1, '0'}
  end
end
local found = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, tonumber(ARGV[4]))
local out = {rev, tag, pepper, 0, rev}
if #found == 2 * tonumber(ARGV[4]) then
  out[5] = found[#found]
end
for i = 1, #found, 2 do
  out[#out + 1] = redis.call('HGET', KEYS[1], found[i]) or ''
end
return out
