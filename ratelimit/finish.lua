-- What ends reservations. It stands behind lib.lua, in front of the scripts that need it.

-- rules_at is where the rules of a reservation begin.
local function rules_at(value)
  local pos = TEXTS + 2 + unpacked('<I2', value, TEXTS)
  return pos + 2 + unpacked('<I2', value, pos)
end

-- by_dimension unpacks a cost into a table. Dimensions are counted from 0, tables from 1.
local function by_dimension(value, pos)
  local requests, input, output, frames, bytes, money = unpacked(COST, value, pos)
  return {requests, input + output, input, output, frames, bytes, money}
end

-- finish replaces what an open reservation took, or what a lost one was settled at, by what was
-- used, frees its places and leaves only its state behind. The first write frees memory: Redis
-- then lets a script finish even at its memory limit. states are what is at the keys, of which
-- those from the third on should be the buckets'; one that is not is read here. newer are the
-- rules as they are by now, packed, if they have changed.
--
-- What was taken in an earlier calendar period does not come back to a bucket of this one.
local function finish(keys, states, value, open, rid, used, state, keep, newer)
  local rules, pos, last = newer or value, 1, newer and #newer
  if not newer then pos, last = rules_at(value), #value - 8 end
  local before, n, anew = sub(value, 1, 4) == 'lost' and by_dimension(value, USED), 2
  used = by_dimension(used, 1)
  while pos < last do
    local kind, dim, hard, amount, full, period, need, key, next = unpacked(RULE, rules, pos)
    pos, n, dim = next, n + 1, dim + 1
    if keys[n] ~= key then keys[n], states[n] = key, kind ~= PLACES and call('GET', key) end
    local back = kind ~= PLACES and (before and before[dim] or need) - used[dim]
    if hard == 1 and back and not before then back = back + by_dimension(value, MORE)[dim] end
    if not back then
      states[n] = true
    elseif back == 0 then
      states[n] = false
    else
      local level, fraction, at, expiry = refill(states[n], kind, amount, full, period)
      if back > 0 and kind ~= STEADY and older(kind, unpacked('<d', value, #value - 7), at) then back = 0 end
      level = math.max(level + back, DEEPEST)
      if level >= full then level, fraction = full, 0 end
      local lasts, longer = lasting(level, at, expiry, kind, amount, full, period)
      if longer then
        anew = anew or {}
        anew[n] = lasts
      end
      states[n] = pack(BUCKET, level, fraction, at, lasts)
    end
  end
  call('ZREM', open, rid)
  for i = 3, n do
    local to = states[i]
    if to == true then
      call('ZREM', keys[i], rid)
    elseif to then
      store(keys[i], to, anew and anew[i])
    end
  end
  if state then call('SET', keys[1], state, 'EX', keep) else call('DEL', keys[1]) end
end
