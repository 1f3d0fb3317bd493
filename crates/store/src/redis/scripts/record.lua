-- What every script of the store begins with: how a record is read, and which indexes know it.

local function take(value, at, length)
  if length == '-' then return nil, at end
  return string.sub(value, at, at + length - 1), at + length
end

local function read(value)
  local version, changed, expires, due, life, key, provider, subject, connection, at = string.match(value,
    '^tk1 (%S+) (%S+) (%S+) (%S+) ([LD]) (%d+) (%S+) (%S+) (%S+)\n()')
  if not version then return nil end
  local record = {version = version, changed = changed, expires = expires, due = due, dead = life == 'D'}
  record.sealed_by, at = take(value, at, key)
  record.provider, at = take(value, at, provider)
  record.subject, at = take(value, at, subject)
  record.connection = take(value, at, connection)
  return record
end

-- The sorted sets that hold the record, and with which score. Those with score 0 are ordered by place.
local function indexes(prefix, kind, record)
  local entries = {}
  entries[prefix .. 'index:' .. kind] = '0'
  entries[prefix .. 'changed:' .. kind] = record.changed
  entries[prefix .. 'sealed_by:' .. record.sealed_by] = '0'
  if record.dead then
    entries[prefix .. 'dead:' .. kind] = '0'
    entries[prefix .. 'buried:' .. kind] = record.expires
    return entries
  end
  if record.expires ~= '-' then entries[prefix .. 'expires:' .. kind] = record.expires end
  if record.due ~= '-' then entries[prefix .. 'due:' .. kind] = record.due end
  if record.provider then entries[prefix .. 'provider:' .. record.provider] = '0' end
  if record.subject then entries[prefix .. 'subject:' .. record.subject] = '0' end
  if record.connection then entries[prefix .. 'of_connection:' .. record.connection] = '0' end
  return entries
end
