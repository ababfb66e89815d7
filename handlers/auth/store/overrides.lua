-- Replaces the overrides of the configuration, if they are still those that the edit was
-- made from.
-- KEYS: the hash with version, tag and text
-- ARGV: version that is replaced (0: none), version, tag, text
-- Returns 1 when it is done, 0 when there is another version.
if redis.call('HGET', KEYS[1], 'tag') == ARGV[3] then
  return 1 -- the answer was lost
end
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'tag', ARGV[3], 'text', ARGV[4])
return 1
